"""Near-duplicates of media: found by hash and embedding, confirmed, the later ones blocked, with a report.

encoder = default_encoder()
report = deduplicate((fingerprint(medium, encoder) for medium in media), WORLD)
print(report_text(report))
"""

from pixelis.data.dedup.decide import audit, deduplicate
from pixelis.data.dedup.fingerprints import Encoder, Fingerprint, MediaRecord, default_encoder, fingerprint, frames_of
from pixelis.data.dedup.report import DedupReport, Removed, Residual, report_text
from pixelis.data.dedup.settings import WORLD, DedupSettings

__all__ = [
    "WORLD",
    "DedupReport",
    "DedupSettings",
    "Encoder",
    "Fingerprint",
    "MediaRecord",
    "Removed",
    "Residual",
    "audit",
    "deduplicate",
    "default_encoder",
    "fingerprint",
    "frames_of",
    "report_text",
]
