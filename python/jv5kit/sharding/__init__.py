"""One input in shards, for several processes or machines: byte ranges of documents, encoded and indexed apart."""
