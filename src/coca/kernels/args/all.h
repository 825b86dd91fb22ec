// coca/kernels/args/all.h - the operands of all ops, for the lists of rows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/activation.h"
#include "coca/kernels/args/adamw.h"
#include "coca/kernels/args/attention.h"
#include "coca/kernels/args/cast.h"
#include "coca/kernels/args/collinear.h"
#include "coca/kernels/args/cross_entropy.h"
#include "coca/kernels/args/decode_attention.h"
#include "coca/kernels/args/dilated_attention.h"
#include "coca/kernels/args/embedding.h"
#include "coca/kernels/args/head_modifiers.h"
#include "coca/kernels/args/heads.h"
#include "coca/kernels/args/kv_store.h"
#include "coca/kernels/args/linear.h"
#include "coca/kernels/args/lora.h"
#include "coca/kernels/args/norm.h"
#include "coca/kernels/args/residual.h"
#include "coca/kernels/args/rope.h"
#include "coca/kernels/args/rope_angle.h"
#include "coca/kernels/args/top_keys.h"
