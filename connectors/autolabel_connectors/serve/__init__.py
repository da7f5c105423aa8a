"""Servers that answer annotation tools by the tools' own conventions: Label Studio's ML backend."""
