"""Phase 3, Pixel TTRL: learning without labels while serving. The decisions here are pure functions of recorded facts."""
