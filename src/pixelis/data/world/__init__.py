"""PixelWorld: procedural images and videos with exact truth, questions about them, and the tools they need."""
