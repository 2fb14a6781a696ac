"""``jv5kit compact``: an index without what was deleted."""

from __future__ import annotations

import sys

from jv5kit.cli.options import AnIndex, Json, Quiet, folder_of, print_json


def compact(index: AnIndex = None, json: Json = False, quiet: Quiet = False) -> None:
    """Write an index anew without what was deleted, in as few segments as can be.

    It can be searched meanwhile. Every step is a commit: an interrupted run loses nothing, and the next one goes on.
    """
    from jv5kit.index import Index
    from jv5kit.progress import ProgressBar
    from jv5kit.retrieval import only_index

    path = folder_of(index, "compact") if index else only_index()
    with Index.open(path) as opened:
        before, segments = opened.bytes_on_disk, opened.segment_count
        rows = opened.row_count + opened.deleted_count
        with ProgressBar("Compacting", lambda: rows, "rows", show=False if quiet or json else None) as progress:
            opened.compact(on_segment=progress)
        after = opened.bytes_on_disk
        if json:
            facts = {"index": str(path), "documents": len(opened), "segments": opened.segment_count}
            print_json(facts | {"bytes_before": before, "bytes": after})
        else:
            print(
                f"{path}: {len(opened):,} documents, {before:,} bytes before, {after:,} now, "
                f"segments: {segments} before, {opened.segment_count} now",
                file=sys.stderr,
            )
