// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/ref/embedding.h"
#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

void forward(Context&, const ops::EmbeddingForward& a) {
  embedding_forward(a.ids.size(0), a.table.size(1), a.ids.as<int32_t>(), FloatInput(a.table).ref().as<float>(),
                    a.y.as<float>());
}

void backward(Context&, const ops::EmbeddingBackward& a) {
  embedding_backward(a.ids.size(0), a.dtable.size(1), a.ids.as<int32_t>(), a.dy.as<float>(), a.dtable.as<float>());
}

}  // namespace

const ops::EmbeddingImpl embedding_row{.name = "ref", .run = {forward, backward}};

}  // namespace coca::ref
