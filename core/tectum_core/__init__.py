"""The model core: what training writes and the worker serves, in one place.

Rooms: `image` (bytes to pixels), `preprocess` (pixels to model input), `tokenizer`,
`masks`, `architecture` (configuration) and `model` (torch), `bundle` (the folder on
disk), `predictor` (inference in process). This package knows neither the wire nor
training nor the command line; importing it does not import torch.
"""
