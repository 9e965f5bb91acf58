"""Tables: Parquet, Arrow and CSV give the rows that were written, and no keys that were not."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skills_pipe.errors import DataError
from skills_pipe.training.data.records.opening import open_records
from skills_pipe.training.data.rows import BadRow

SAVED = Path(__file__).parents[2] / "golden" / "saved"
CALLS = [
    {"tools": [{"name": "search", "arguments": {"query": "x"}}], "n": 1},
    {"tools": [{"name": "calc", "arguments": {"expression": "2+2", "precision": 2}}], "n": 2},
    {"tools": None, "n": None},
]


def values(path, *part, **options):
    return [value for _, value in open_records(path, **options).read(*part)]


def written(folder, kind, rows, size):
    table = pa.Table.from_struct_array(pa.array(rows))
    path = folder / f"rows.{kind.split('-')[0]}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=size)
        return path
    new = pa.ipc.new_stream if kind == "arrow-stream" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=size)
    return path


@pytest.mark.parametrize("kind", ["parquet", "arrow-stream", "arrow-file"])
def test_any_part_of_a_table(tmp_path, kind):
    rows = [{"i": i, "s": f"ü{i}"} for i in range(2500)]
    path = written(tmp_path, kind, rows, 700)
    assert len(open_records(path)) == 2500
    for start, stop in ((0, None), (0, 1), (699, 701), (1500, None), (2499, None), (2500, None), (0, 0)):
        assert values(path, start, stop) == rows[start:stop]
    assert next(iter(open_records(path).read(701)))[0] == f"{path}, row 702"


@pytest.mark.parametrize("kind", ["parquet", "arrow-stream", "arrow-file"])
def test_tool_calls_lose_the_keys_that_the_table_added(tmp_path, kind):
    path = written(tmp_path, kind, CALLS, 10)
    assert values(path) == CALLS
    unified = values(path, preserving=False)
    assert unified[0]["tools"][0]["arguments"] == {"query": "x", "expression": None, "precision": None}


def test_lines_gain_keys_on_request_only(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, CALLS)))
    assert values(path) == CALLS
    unified = values(path, preserving=False)
    assert unified[1]["tools"][0]["arguments"] == {"query": None, "expression": "2+2", "precision": 2}
    path.write_text('{"a": 1}\n{"a": {}}\n')
    with pytest.raises(DataError, match=r"do not fit into one table: .*use_preserving_dataset=true"):
        values(path, preserving=False)


def test_a_folder_that_datasets_saved():
    [file] = sorted((SAVED / "with_splits" / "validation").glob("*.arrow"))
    assert values(file) == [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}], "n": n}
        for n in (4, 5)
    ]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.csv.gz"])
def test_delimited_text(tmp_path, name):
    text = 'input,output\n"1,5 + ""x""\nnew line",2\n\nlast,03\n'.replace(",", "\t" if "tsv" in name else ",")
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode("utf-8-sig"))
    comma = "\t" if "tsv" in name else ","
    rows = list(open_records(path).read())
    assert [value for _, value in rows] == [
        {"input": f'1{comma}5 + "x"\nnew line', "output": "2"},
        {"input": "last", "output": "03"},
    ]
    assert [where for where, _ in rows] == [f"{path}:2", f"{path}:5"]
    assert values(path, 1, 2) == [rows[1][1]]
    assert len(open_records(path)) == 2


def test_a_row_of_another_width_is_bad(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("input,output\na,b,c\nd,e\n")
    bad, good = values(path)
    assert bad == BadRow(where=f"{path}:2", what="3 values for 2 columns")
    assert good == {"input": "d", "output": "e"}


def test_lines_of_text(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n  two\n\xff\n")
    first, second, bad = values(path)
    assert (first, second) == ({"text": "one"}, {"text": "  two"})
    assert bad == BadRow(where=f"{path}:4", what="not UTF-8 (byte 0)")


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_a_file_that_is_no_table(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="cannot be read as a table") as caught:
        values(path)
    assert str(path) in str(caught.value)


def test_an_array_in_a_compressed_file(tmp_path):
    path = tmp_path / "rows.json.gz"
    path.write_bytes(gzip.compress(b'[{"a": 1}, {"b": 2}]'))
    assert values(path, 1) == [{"b": 2}]


@pytest.mark.parametrize("name", ["a.TSV", "a.CSV.GZ", "a.JSON.GZ", "a.JSONL.GZ", "a.Parquet"])
def test_capitals_in_a_suffix_mean_the_same(tmp_path, name):
    path = tmp_path / name
    lines = {"tsv": "k\nv\n", "csv": "k\nv\n", "json": '[{"k": "v"}]', "jsonl": '{"k": "v"}\n'}
    if path.suffix == ".Parquet":
        pq.write_table(pa.table({"k": ["v"]}), path)
    else:
        text = lines[name.lower().split(".")[1]].encode()
        path.write_bytes(gzip.compress(text) if name.endswith("GZ") else text)
    assert values(path) == [{"k": "v"}]


def test_of_two_columns_of_one_name_neither_is_taken(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("input,output,output\na,b,c\n")
    with pytest.raises(DataError, match=r"two columns are called 'output' \(.*rows.csv:1\): rename one"):
        values(path)


def test_a_quote_that_is_never_closed_is_named_where_it_is_opened(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('input,output\na,b\n"c,d\ne,f\n')
    with pytest.raises(DataError, match=r"unexpected end of data \(.*rows.csv:3\)"):
        values(path)
