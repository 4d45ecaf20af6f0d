"""The programmatic teacher of CoTA traces: it knows an item's truth, points where coarse eyes could, and lets the real tools measure."""
