"""The studio: a page in the browser from which everything the command line does can be started, watched and looked at.

    server.py    binds, makes the token, prints the URL          guard.py    who may ask
    app.py       the application, and what errors become         places.py   which folders there are, and what they are
    routes.py    one short function for each URL                 jobs.py     the queue of command lines
    requests.py  what may be asked for, with bounds              runs.py     a run folder as the page shows it
    forms.py, intake.py, explore.py, outliers.py                what needs a model or images, imported when first used

The run folder is the database, and a job is the command line in a child process: nothing to migrate, and nothing that
the command line cannot do. The page itself is written in TypeScript in `web/` and bundled into `static/` by `make web`.
"""
