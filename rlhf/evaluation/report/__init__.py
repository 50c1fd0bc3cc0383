"""Numbers to sections, sections to one HTML page."""
