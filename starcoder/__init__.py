"""StarCoder (arXiv 2305.06161), reproduced: from raw repositories to a released code model.

The rooms follow the paper's sections; each package's docstring names its own.
"""
