"""What results, run folders, tables and the page are, byte for byte, so that moving code cannot change them unseen.

Figures of more than five significant digits are rounded to them (processors differ in the last ones), and digests,
times, versions, folders and pictures are masked. After a change that is meant:
`PINNED=write pytest tests/pinned`, and read the difference before it is committed.
"""
