"""Other harnesses score the agent: what lmms-eval and VLMEvalKit ask, put to the agent, and its final answers given back.

Each adapter is a class to be mixed with its harness's base class; `pixelis.harness` does so, from names and paths.
"""
