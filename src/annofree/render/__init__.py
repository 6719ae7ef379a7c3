"""What people look at: overlays, sheets, pages, charts."""
