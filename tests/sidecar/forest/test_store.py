import pytest

from support.lengths import sampled, workload
from tempo_sidecar.forest.store import load, save


@pytest.fixture
def few():
    return sampled(workload(20, seed=1)).records()


def test_what_is_saved_is_there_again(tmp_path, few):
    folder = tmp_path / "new" / "folder"
    save(folder, few)
    save(folder, few)
    assert (load(folder).rows == few.rows).all()
    assert [path.name for path in folder.iterdir()] == ["lengths.msgpack"]


def test_no_history_is_no_warning(tmp_path, caplog):
    assert load(tmp_path) is None
    assert not caplog.records


@pytest.mark.parametrize("damage", [b"", b"\x80\x04\x95 a pickle", b"x" * (17 << 20)])
def test_a_damaged_history_is_a_warning_and_a_cold_start(tmp_path, few, caplog, damage):
    (tmp_path / "lengths.msgpack").write_bytes(damage)
    assert load(tmp_path) is None
    assert "is begun anew" in caplog.text


def test_a_history_cut_short_is_a_cold_start(tmp_path, few):
    save(tmp_path, few)
    path = tmp_path / "lengths.msgpack"
    path.write_bytes(path.read_bytes()[:-1])
    assert load(tmp_path) is None


def test_a_folder_that_can_not_be_written_is_a_warning(tmp_path, few, caplog):
    (tmp_path / "file").touch()
    save(tmp_path / "file", few)
    assert "can't be saved" in caplog.text


def test_the_file_holds_no_word_of_any_prompt(tmp_path, few):
    save(tmp_path, few)
    data = (tmp_path / "lengths.msgpack").read_bytes().lower()
    assert not [word for word in (b"essay", b"bridges", b"translate", b"helpful") if word in data]
