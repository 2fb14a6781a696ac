"""How good a model is: evaluation sets of every kind, each scored at every dimension and precision.

``folders`` finds the sets (``layouts`` and ``public`` say what they look like, ``tasks`` what they hold), ``runner``
encodes each text once and scores it, one file a kind, ``table`` and ``plots`` show it, ``mteb_adapter`` lets mteb do
the same. ``metrics``, ``correlation`` and ``labels`` are the measures.
"""
