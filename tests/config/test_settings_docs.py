"""jobs/README.md lists every setting with its default and meaning, as in the models."""

from ids_spark.config.described import sections
from tests.support import settings_docs


def test_the_readme_of_the_jobs_has_a_table_for_every_section_of_the_configuration():
    assert settings_docs.documented(settings_docs.README.read_text()) == set(sections())


def test_the_tables_state_every_setting_as_its_model_does():
    text = settings_docs.README.read_text()
    assert text == settings_docs.with_settings(text), "generate it again: python -m tests.support.settings_docs"


def test_a_table_states_name_default_and_meaning():
    assert "| `purge.older_than_days` | `90` | What is of a date" in settings_docs.table("purge")
    assert "| `promote.alias` | `champion` | " in settings_docs.table("promote")
    assert "| `train.loss` | `sparse` | " in settings_docs.table("train")
    assert "One of `champion`, `challenger`. |" in settings_docs.table("promote")
