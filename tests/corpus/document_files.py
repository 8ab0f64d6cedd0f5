"""Documents written in every format that is read, and read back."""

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle

import pyarrow
import pyarrow.parquet
import zstandard

COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}


def as_jsonl(documents, field="text"):
    return "".join(json.dumps({"id": n, field: d}) + "\n" for n, d in enumerate(documents)).encode()


def as_jsonl_unescaped(documents):
    return "\n".join(json.dumps({"text": d}, ensure_ascii=False) for d in documents).encode()


def as_strings(documents):
    return "\n".join(json.dumps(d, ensure_ascii=False) for d in documents).encode()


def as_json(documents):
    return json.dumps([{"text": d, "id": [n]} for n, d in enumerate(documents)], ensure_ascii=False, indent=1).encode()


def as_json_values(documents):
    return "".join(json.dumps({"text": d}, indent=2) for d in documents).encode()


def as_csv(documents, delimiter=","):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["id", "text"])
    writer.writerows(enumerate(documents))
    return b"\xef\xbb\xbf" + file.getvalue().encode()  # as spreadsheets write it


def as_tsv(documents):
    return as_csv(documents, "\t")


def as_text(documents):
    return "\n<|endoftext|>\n".join(documents).encode()


def as_windows_text(documents):
    return b"\xef\xbb\xbf" + as_text(documents).replace(b"\n", b"\r\n")


def as_parquet(documents, group=3, kind=pyarrow.string):
    file = io.BytesIO()
    table = pyarrow.table({"id": list(range(len(documents))), "text": pyarrow.array(documents, kind())})
    pyarrow.parquet.write_table(table, file, row_group_size=group)
    return file.getvalue()


def read(source, start=0):
    """All documents of all parts, each part gone through a pickle as on its way to a worker."""
    return [text for part in pickle.loads(pickle.dumps(source.parts())) for text in part.read(start)]
