import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_settings_is_what_the_code_says():
    spec = importlib.util.spec_from_file_location("reference", DOCS / "make_reference_settings.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    written = (DOCS / "reference-settings.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run: python docs/make_reference_settings.py"
