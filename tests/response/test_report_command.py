"""The report of a response by its command: what is not there is said, and is no evidence."""


def test_the_recipe_reads_a_directory_without_runs(command, tmp_path):
    page, card = tmp_path / "report.html", tmp_path / "card.md"
    code, _ = command("report", "--config=configs/report.py:crt", f"--root={tmp_path}", f"--markdown={card}")
    assert code == 0
    assert "No evidence that transfer helps: probe would have to beat QRS area and random" in page.read_text()
    assert "missing: crt/comparators/results/crossvalidation/*.json" in page.read_text()
    assert "**Research use only." in card.read_text()


def test_its_data_stand_in_the_config(command, tmp_path):
    code, said = command("report", "--config=configs/report.py:crt", f"--root={tmp_path}", "--data=x")
    assert code == 1
    assert "--data: a report of cross-validations names its data in the config" in said
