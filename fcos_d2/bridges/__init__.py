"""Detections and detectors as other tools take them; each module needs the tool that it is called after.

What may be changed here: how what is found looks to others. Nothing here decides what is found.
"""
