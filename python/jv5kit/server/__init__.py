"""The HTTP server: embeddings in OpenAI's shape and Jina's, and search.

A request is read under a cap (``limits``), parsed (``requests``), tokenized in a pool of threads (``service``), and
queued; one thread encodes batches of texts of all requests (``batching``); the answer is packed (``packing``) and sent
(``app``).
"""
