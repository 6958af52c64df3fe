"""Learn: the families play on points of the plane, trained by the training loop itself as one looks on.

    toys.py     points of the plane, what is known of them        code.py       the lines that are the loss
    views.py    what is drawn: points, arrows, a field            exercises.py  what is to be found out
    lesson.py   a model in training, turn by turn                 sessions.py   how many there are, and until when

A point is an image of one row with two pixels, so nothing here is a model of its own: families, losses, players and
the loop are those of images.
"""
