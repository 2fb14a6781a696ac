"""Where people already are: jv5kit as a part of other libraries, each in a module that is imported by its name.

=====================================  ==================================================================
:mod:`jv5kit.integrations.langchain`   embeddings and a vector store of LangChain
:mod:`jv5kit.integrations.llamaindex`  an embedding model and a vector store of LlamaIndex
:mod:`jv5kit.integrations.faiss`       codes as an index of FAISS, and an index made of one of FAISS's
:mod:`jv5kit.integrations.mteb`        a model that mteb evaluates, with an index of ours as its search
=====================================  ==================================================================

sentence-transformers needs none: a folder that it saved is a model here, and one that ``jv5kit export MODEL --merge
TASK`` wrote is a model there.
"""
