"""Pixelis: a vision-language agent that reasons in pixels."""
