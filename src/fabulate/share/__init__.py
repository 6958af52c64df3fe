"""A trained model outside of fabulate: as ONNX graphs, as a page for any file server, as a folder of diffusers.

`graphs.py` says which functions of a model can be written down, `onnx.py` writes one and holds it against the model,
`web.py` makes a folder of them that a browser runs, `diffusers.py` is for diffusion models that diffusers knows too.
"""
