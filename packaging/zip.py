"""Packs a folder as a zip archive, the same each time. Usage: packaging/zip.py FOLDER ARCHIVE"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

folder, archive = Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        # Times are in no zone there, so none is kept; what may be run stays so.
        entry = zipfile.ZipInfo(str(file.relative_to(folder.parent)), (2020, 1, 1, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = file.stat().st_mode << 16
        packed.writestr(entry, file.read_bytes())
