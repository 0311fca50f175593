import importlib
import inspect

import pytest

from lightning_trainingkit.functional.metric_name import is_missing, named_mode, resolve_mode

LOSSES = """
    loss val_loss val/loss valLoss valloss Val-Loss val/loss/dataloader_idx_0 train_loss_epoch sanity_val/loss loss_2
    dice_loss dice/loss DiceLoss PSNRLoss iou_loss top1_error top5_err acc_loss map_loss val_bce val/ce KLDivergence
    nll log_loss logloss mape smape mse2 rmse_mean val/ppl wer fid lpips regret brier hinge ece
"""
SCORES = """
    acc val_acc val/acc valAcc valacc VALACC valid_accuracy val/acc/dataloader_idx_0 val_acc_epoch acc1 acc@5 top1 top-5
    loss_acc f1 val_F1 val/f1_macro F1Score f1score macroF1 microf1 auc AUROC val_auroc rocauc prauc AP ap50 mAP mAP50
    map_50 val/mAP50-95 valMAP IoU mIoU miou valIoU mean_iou jaccard dice_mean PSNR val_psnr ssim precision recall@10
    kappa mcc r2 R2Score pearson spearmanr BLEU bleu4 rougeL rouge-1 ndcg@10 mrr reward episode_reward brier_score em
    score accuracy_cancer acc_flower
"""
NEITHER = ["val/width", "lr", "epoch", "", "val/1", "perform", "val_stop"]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, "min") for name in LOSSES.split()),
        *((name, "max") for name in SCORES.split()),
        *((name, None) for name in NEITHER),
    ],
)
def test_the_last_word_that_is_known_decides(name, mode):
    assert named_mode(name) == mode


def torchmetrics_classes():
    for part in ("classification", "regression", "image", "audio", "retrieval", "text", "detection", "clustering"):
        for name, value in vars(importlib.import_module(f"torchmetrics.{part}")).items():
            if inspect.isclass(value) and isinstance(getattr(value, "higher_is_better", None), bool):
                yield name, "max" if value.higher_is_better else "min"


def test_no_metric_of_torchmetrics_is_judged_the_wrong_way_round():
    found = {name: (mode, named_mode(name)) for name, mode in torchmetrics_classes()}
    assert len(found) > 80
    missed = {name for name, (mode, named) in found.items() if mode == "max" and named != "max"}
    # torchmetrics has a distortion and a path length the wrong way round
    assert missed == {"SpectralDistortionIndex", "PerceptualPathLength"}


def test_a_loss_needs_no_mode_and_a_score_does():
    assert [resolve_mode(name, None) for name in ("val_loss", "dice_loss", "val/width")] == ["min"] * 3
    assert resolve_mode("val/acc", "max") == resolve_mode("val/loss", "max") == "max"
    assert resolve_mode("val/acc", "min") == "min"
    with pytest.raises(ValueError, match="`mode` must be given for 'val/acc', which by its name is a score"):
        resolve_mode("val/acc", None)
    with pytest.raises(ValueError, match="`mode` must be one of 'min', 'max', got 'best'"):
        resolve_mode("val/loss", "best")
    with pytest.raises(TypeError, match="`monitor` must be the name of a metric, got None"):
        resolve_mode(None, None)


@pytest.mark.parametrize(
    ("monitor", "logged", "missing"),
    [
        ("val/accuracy", ["val/acc", "val/loss"], True),
        ("val/acc", ["val/acc/dataloader_idx_0", "val/acc/dataloader_idx_1"], True),
        ("val/loss", ["val/loss"], False),
        ("val/loss", ["sanity_val/loss"], False),
        ("val/loss", ["loss"], False),
        ("val/loss", [], False),
        ("train/acc", ["val/loss"], False),
        ("trainAcc", ["val/loss"], False),
        ("constrained", ["val/loss"], True),
        ("sub_train_loss", ["val/acc"], False),
    ],
)
def test_what_the_first_epoch_can_still_log_is_not_missing(monitor, logged, missing):
    assert is_missing(monitor, logged, training=True) is missing


def test_a_metric_of_training_is_missing_where_only_validation_counts():
    assert is_missing("train/loss", ["val/loss"], training=False)
    assert not is_missing("train/loss", [], training=False)
