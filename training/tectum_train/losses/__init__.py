"""Losses as formulas: tensors in, a scalar out; they know no batch, no model and no recipe.

One file a family. A loss that couples samples works on a rank's own rows against those of all
ranks, so that data-parallel training of any number of ranks computes what one would
(`tectum_train.distributed`). All are in float32 or wider whatever comes in and whatever autocast
the step runs under: a contrastive logit rounded to bfloat16 puts the gradient off by a percent.
"""
