from lightning_trainingkit.tuning.verdict import Verdict


def test_line_leaves_out_missing_advice():
    verdict = Verdict(step="small_sample", verdict="fail", message="It stays at 12 %.", advice="Raise the rate.")
    assert verdict.line == "fail. It stays at 12 %. Raise the rate."
