import importlib
import inspect

import pytest

from lightning_trainingkit.functional.metric_name import (
    is_learning_rate,
    is_missing,
    is_of_step,
    named_mode,
    quantity_of,
    resolve_mode,
    stage_of,
)

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
TRAIN = """
    train_loss:loss train_loss_epoch:loss train_loss_step:loss train/loss:loss Loss/train:loss training/acc:acc
    trainAcc:acc TrainLoss:loss trainloss:loss training_loss:loss tr_loss:loss train-f1:f1 train/std_dev:std_dev
    eval_train/acc:eval_acc train.mAP50:m_ap50 trn_loss:loss
"""
VAL = """
    val_loss:loss val/loss:loss val_loss_epoch:loss valid/f1:f1 val/loss/dataloader_idx_0:loss Loss/val:loss
    val_loss_epoch/dataloader_idx_1:loss validation_accuracy:acc valAcc:acc VALACC:acc valacc:acc VAL_LOSS:loss
    validacc:acc sanity_val/loss:sanity_loss eval/mAP50:m_ap50 eval_loss:loss avg_val_loss:avg_loss dev_f1:f1
    dev/loss:loss DevLoss:loss validate/loss:loss train/val_loss:train_loss val2_loss:val2_loss valIoU:io_u
    evaluation/f1:f1 epoch/val_loss:epoch_loss val_step:step
"""
TEST = (
    "test_top5_acc:top5_acc test/acc_member:acc_member testacc5:acc5 Accuracy/test:acc test_loss/dataloader_idx_2:loss"
)
NO_STAGE = """
    loss:loss acc:acc loss_step:loss interval:interval invalid:invalid latest:latest contest_loss:contest_loss
    trainer/global_step:trainer_global trainer_loss:trainer_loss pretrain_loss:pretrain_loss retrieval_map:retrieval_map
    std_dev:std_dev loss_std_dev:loss_std_dev device_loss:device_loss value_loss:value_loss validity:validity
    greatest_acc:greatest_acc testimony:testimony epoch:epoch step:step trap:trap
"""
RATES = (
    "lr lr-SGD lr-AdamW/pg1 learning_rate lr/group0 x/lr0 LR train/lr optim/learning-rate learningRate lr_encoder lr-*"
)
NO_RATES = "lr-SGD-momentum lr-AdamW/pg1-weight_decay lr-Adam-betas lr_find/loss loss polar/x clr rate learning epoch"
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


@pytest.mark.parametrize(
    ("name", "stage", "quantity"),
    [
        (name, stage, quantity)
        for stage, names in (("train", TRAIN), ("val", VAL), ("test", TEST), (None, NO_STAGE))
        for name, quantity in (pair.split(":") for pair in names.split())
    ],
)
def test_a_name_says_its_stage_and_what_is_measured(name, stage, quantity):
    assert (stage_of(name), quantity_of(name)) == (stage, quantity)


def test_a_name_without_a_word_stays_what_it_is():
    assert [quantity_of(name) for name in ("", "val", "ошибка")] == ["", "val", "ошибка"]


@pytest.mark.parametrize(
    ("name", "rate"), [*((name, True) for name in RATES.split()), *((name, False) for name in NO_RATES.split())]
)
def test_learning_rates_are_known_by_their_words(name, rate):
    assert is_learning_rate(name) is rate


def test_values_of_steps_are_told_from_those_of_epochs():
    names = ["loss_step", "val_loss_step/dataloader_idx_0", "loss_epoch", "loss", "step", "footstep"]
    assert [is_of_step(name) for name in names] == [True, True, False, False, False, False]
