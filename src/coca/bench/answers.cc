// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/answers.h"

#include <cmath>

#include "coca/base/count.h"
#include "coca/ops/device.h"
#include "coca/ops/table.h"
#include "coca/tensor/transfer.h"

namespace coca::bench {

namespace {

double value_at(TensorRef t, int64_t i) {
  return static_cast<double>(t.dtype == DType::kBF16 ? static_cast<float>(t.as<BF16>()[i]) : t.as<float>()[i]);
}

}  // namespace

double relative_distance(TensorRef there_a, TensorRef there_b) {
  Context cx_a(ops::device_memory(there_a.device)), cx_b(ops::device_memory(there_b.device));
  FetchedTensor fetched_a, fetched_b;
  const TensorRef a = fetched_a.now(cx_a, there_a), b = fetched_b.now(cx_b, there_b);
  COCA_CHECK_AS(kInternal, a.numel() == b.numel() && a.contiguous() && b.contiguous(),
                "[bench] {} cannot be compared with {}", a.shape.text(), b.shape.text());
  double off = 0, size = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double y = value_at(b, i), d = value_at(a, i) - y;
    off += d * d;
    size += y * y;
  }
  return std::sqrt(off / size);  // NaN for all zeros: such an answer proves nothing
}

void check_close(TensorRef actual, TensorRef expected, Precision precision, double roundings, std::string_view what) {
  const double distance = relative_distance(actual, expected), most = roundings * unit_roundoff(precision);
  COCA_CHECK_AS(kInternal, distance <= most,
                "[bench] wrong answer: {} is {:.2e} away from the reference; expected at most {:.2e}", what,
                without_nan_sign(distance), most);
}

Context reference_context() {
  Context cx(nullptr);
  for (const ops::OpTable& op : ops::op_tables())
    cx.force_impl(std::string(op.op), std::string(op.names(DeviceKind::kCpu).back()));
  return cx;
}

}  // namespace coca::bench
