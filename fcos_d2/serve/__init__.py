"""A detector that answers over HTTP: pictures come in, are looked at in batches, and what is found goes out as JSON.

What may be changed here: how pictures arrive, wait and are answered. What is found in them is an engine's.
"""
