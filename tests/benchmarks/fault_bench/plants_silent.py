"""Faults that may leave the accuracy alone, and are wrong all the same."""

from .plant import NORMED, PLAIN, Plant, change, kinds, net, untrained

__all__ = ["SILENT"]

SILENT: dict[str, Plant] = {
    "head not in the optimizer": untrained("HeadNotInOptimizer"),
    "body not in the optimizer": untrained("BodyNotInOptimizer"),
    "layer not in the optimizer": Plant(
        kinds("parameters_not_trained"), {"edge": net("LayerNotInOptimizer")}, verify="not trained"
    ),
    "head replaced after the optimizer": untrained("StaleHead"),
    "features detached": untrained("Detached"),
    "body under no_grad": untrained("BodyWithoutGrad"),
    "first layer detached": Plant(
        kinds("parameters_not_trained"), {"edge": net("FirstLayerDetached")}, PLAIN, verify="not trained"
    ),
    "no step": untrained("WithoutStep"),
    "cleared before the step": untrained("ClearedBeforeStep"),
    "eval mode from the start": Plant(
        kinds("eval_mode_in_training"), {"extreme": net("EvalInInit")}, NORMED, verify="eval in training"
    ),
    "eval mode, with dropout": Plant(
        kinds("eval_mode_in_training"),
        {"edge": net("EvalInInit", dropout=0.2)},
        ("mlp", "cnn", "transformer"),
        verify="eval in training",
    ),
    "eval mode after validation": Plant(
        kinds("eval_mode_in_training"), {"edge": net("EvalAfterValidation")}, NORMED, verify="eval in training"
    ),
    "one layer in eval mode": Plant(
        kinds("eval_mode_in_training"), {"edge": net("OneLayerInEval")}, NORMED, verify="eval in training"
    ),
    "training mode in validation": Plant(
        kinds("evaluation_in_training_mode"),
        {"extreme": net("TrainInValidation", dropout=0.3)},
        verify="training in evaluation",
    ),
    "dropout in validation": Plant(
        kinds("evaluation_in_training_mode"),
        {"edge": net("DropoutInValidation", dropout=0.3)},
        verify="training in evaluation",
    ),
    "no eval hook": Plant(
        kinds("evaluation_in_training_mode"), {"extreme": net("NoEvalHook")}, NORMED, verify="training in evaluation"
    ),
    "running statistics never move": Plant(
        kinds("normalisation_off"),
        {"extreme": change(batch_norm_options=(("momentum", 0.0),))},
        NORMED,
        verify="norm off",
    ),
    "norm layers skipped": Plant(
        kinds("normalisation_off", "parameters_not_trained"), {"edge": net("NormSkipped")}, NORMED, verify="norm off"
    ),
    "schedule not returned": Plant(
        kinds("scheduler_not_stepping"), {"edge": net("ScheduleNotReturned", schedule="cosine")}, verify="rate fixed"
    ),
    "schedule by epochs": Plant(
        kinds("scheduler_not_stepping"), {"edge": net("ScheduleByEpochs", schedule="cosine")}, verify="rate fixed"
    ),
    "schedule not stepped by hand": Plant(
        kinds("scheduler_not_stepping"),
        {"extreme": net("ManualWithoutSchedule", schedule="one cycle")},
        verify="rate fixed",
    ),
    "gradients kept by hand": Plant(
        kinds("gradients_not_cleared"), {"extreme": net("ManualWithoutZeroGrad")}, verify="gradients kept"
    ),
    "gradients kept by a hook": Plant(
        kinds("gradients_not_cleared"), {"extreme": net("ZeroGradOverridden")}, verify="gradients kept"
    ),
    "gradients cleared once an epoch": Plant(
        kinds("gradients_not_cleared"), {"edge": net("ZeroGradOnceAnEpoch")}, verify="gradients kept"
    ),
    "centred by the batch": Plant(kinds("batch_leaks"), {"edge": net("CentredByBatch")}, PLAIN, verify="leak"),
    "softmax over the batch": Plant(kinds("batch_leaks"), {"edge": net("SoftmaxOverBatch")}, verify="leak"),
    "reshape mixes images": Plant(kinds("batch_leaks"), {"extreme": net("ReshapedWrongly")}, verify="leak"),
    "attention over the batch": Plant(kinds("batch_leaks"), {"extreme": net("AttentionOverBatch")}, verify="leak"),
}
