"""A night scored by a model that reads derived features. All flows are synthetic."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from ids_spark.score.night_rows import features_at_fault
from tests.support.nights import DATE, copy, logs_of, network_of, night_row, read, score, with_derived_features

ROWS = 600
FAULTY = list(range(40, 60))


def derived(flows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Some derived features, as their names state them; no denominator of these flows is 0."""
    return {
        "Max - Min": (flows["Max"] - flows["Min"]).to_numpy(),
        "Std / AVG": (flows["Std"] / flows["AVG"]).to_numpy(),
        "Min / Max": (flows["Min"] / flows["Max"]).to_numpy(),
        "AVG - Tot size": (flows["AVG"] - flows["Tot size"]).to_numpy(),
    }


def test_a_score_that_is_not_finite_is_due_to_a_raw_feature() -> None:
    raw, features = ("Std", "AVG", "Rate"), ("Std", "Rate", "Std / AVG")
    matrix = np.array([[1, -1e30, 2], [1, 3e38, 3e38], [9, 2, 1e30], [np.float32(-3e38), 3e38, 0]], dtype=np.float32)
    assert features_at_fault(matrix, features, raw).tolist() == [2, 2, 1, 0]
    assert features_at_fault(matrix[:, 2:], features[2:], raw).tolist() == [1] * 4


def test_derived_features_of_a_night_also_where_a_raw_one_is_at_its_benign_median(nights: Path, tmp_path: Path) -> None:
    folder = copy(nights, tmp_path / "night")
    model = with_derived_features(folder)
    card, scores = model.card, model.validation_scores
    assert scores is not None
    logs = folder / "logs" / f"event_date={DATE}"
    truth = pd.read_parquet(folder / "logs/_truth" / f"event_date={DATE}").set_index("flow_id")["class19"]
    flows = logs_of(folder).drop(columns=["source_file", "source_row"])
    attack = flows["flow_id"].map(truth) != "Benign"
    flows = pd.concat([flows[attack].head(ROWS // 4), flows[~attack]]).head(ROWS).reset_index(drop=True)
    shutil.rmtree(logs)
    logs.mkdir()
    written = flows.copy()
    written.loc[FAULTY, "AVG"] = np.nan
    written.to_parquet(logs / "flows.parquet", index=False)
    code, output = score(folder, f"score.models=[{card.name}]", "alerts.attributions=10")
    assert code in (0, 3), output
    predictions = read(folder, "predictions").set_index("source_row")
    assert len(predictions) == ROWS
    assert predictions["imputed"].dropna().to_dict() == dict.fromkeys(FAULTY, "AVG")
    assert night_row(folder)["rows_imputed"] == len(FAULTY)

    feature = next(f for f in model.preprocessor.features if f.name == "AVG")
    flows.loc[FAULTY, "AVG"] = scores.baseline[card.features.index("AVG")] * feature.std + feature.mean
    expected = derived(flows)
    values = {name: flows[name].to_numpy() for name in card.source_features}
    matrix = np.column_stack(model.preprocessor.transform(values | expected, card.features))
    probabilities = network_of(model).predict(matrix, verbose=0)[:, 1]
    found = predictions["attack_probability"].loc[range(ROWS)]
    np.testing.assert_allclose(found, probabilities, rtol=1e-3, atol=1e-6)

    drift = read(folder, "drift").query("kind == 'feature'").set_index("name")
    assert set(drift.index) == set(card.features)
    sound = ~flows.index.isin(FAULTY)
    for name, column in expected.items():
        assert drift.loc[name, "rows"] == ROWS - len(FAULTY)
        reached = [(column[sound] >= edge).sum() for edge in drift.loc[name, "edges"]]
        assert np.cumsum(drift.loc[name, "counts"][::-1])[:-1][::-1].tolist() == reached
    shown = 0
    for row, entries in predictions["attributions"].items():
        for entry in entries if entries is not None else []:
            if entry["feature"] in expected:
                assert entry["value"] == expected[entry["feature"]][row]
                shown += 1
    assert shown
