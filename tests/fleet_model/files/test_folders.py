"""Files in folders."""

from fleet_model.files.folders import files_below


def test_links_that_lead_nowhere_or_back_end_nothing(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_text("")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / ".hidden").write_text("")
    assert list(files_below(tmp_path, lambda *_: None)) == [tmp_path / "b" / "c.txt"]
