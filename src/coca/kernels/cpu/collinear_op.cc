// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/rope.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

// What the rotated functions share: the form, and the angles as the kernels take them.
struct Plan {
  int kind;
  RopeTables tables;
};
Plan plan_of(const ops::CollinearOptions& options, const ops::RopeRows& rows) {
  return {static_cast<int>(options.kind), {rows.cos.view<float, 3>(), rows.sin.view<float, 3>()}};
}

template <typename Body>
void over_rows(TensorRef x, const Body& body) {
  parallel_blocks(x.size(0) * x.size(1), ops::row_grain(x), body);
}

ops::RopeRows rows_of_keys(const ops::RopeRows& rows, const ops::RopeRows& key_rows) {
  return key_rows.cos.empty() ? rows : key_rows;
}

// t folded and rotated by the rows into k_eff [B, N, G, D].
struct KeyFromT {
  ops::RopeRows rows;
  TensorRef t;
  MutTensorRef k_eff;
};

void query_by(const Plan& plan, const ops::CollinearQuery& a) {
  ops::with_float_type(a.q.dtype, [&](auto zero) {
    const auto q = a.q.view<decltype(zero), 4>();
    const auto q_eff = a.q_eff.view<decltype(zero), 4>();
    over_rows(a.q, [&](int64_t r0, int64_t r1) { collinear_query_rows(plan.kind, plan.tables, q, q_eff, r0, r1); });
  });
}

void key_from_t_by(const Plan& plan, const KeyFromT& a) {
  ops::with_float_type(a.t.dtype, [&](auto zero) {
    const auto t = a.t.view<decltype(zero), 4>();
    const auto k_eff = a.k_eff.view<decltype(zero), 4>();
    over_rows(a.t,
              [&](int64_t r0, int64_t r1) { collinear_key_rows_from_t(plan.kind, plan.tables, t, k_eff, r0, r1); });
  });
}

template <typename T>
void backward_as(const Plan& plan, const RopeTables& key_tables, const ops::CollinearBackward& a) {
  const auto q = a.q.view<T, 4>(), t = a.t.view<T, 4>();
  const auto dq_eff = a.dq_eff.view<T, 4>(), dk_eff = a.dk_eff.view<T, 4>();
  const auto dq = a.dq.view<T, 4>(), dt = a.dt.view<T, 4>();
  over_rows(a.q, [&](int64_t r0, int64_t r1) {
    collinear_query_rows_backward(plan.kind, plan.tables, q, dq_eff, dq, r0, r1);
  });
  over_rows(a.t,
            [&](int64_t r0, int64_t r1) { collinear_key_rows_backward(plan.kind, key_tables, t, dk_eff, dt, r0, r1); });
}

void fold(Context&, const ops::CollinearOptions&, const ops::CollinearFold& a) {
  ops::with_float_type(a.t.dtype, [&](auto t_zero) {
    ops::with_float_type(a.tbar.dtype, [&](auto tbar_zero) {
      const auto t = a.t.view<decltype(t_zero), 4>();
      const auto tbar = a.tbar.view<decltype(tbar_zero), 4>();
      over_rows(a.t, [&](int64_t r0, int64_t r1) { collinear_fold_rows(a.R, t, tbar, r0, r1); });
    });
  });
}

void query(Context&, const ops::CollinearOptions& options, const ops::CollinearQuery& a) {
  query_by(plan_of(options, a.rows), a);
}

void key(Context&, const ops::CollinearOptions& options, const ops::CollinearKey& a) {
  const Plan plan = plan_of(options, a.rows);
  ops::with_float_type(a.tbar.dtype, [&](auto tbar_zero) {
    ops::with_float_type(a.k_eff.dtype, [&](auto key_zero) {
      const auto tbar = a.tbar.view<decltype(tbar_zero), 4>();
      const auto k_eff = a.k_eff.view<decltype(key_zero), 4>();
      over_rows(a.k_eff,
                [&](int64_t r0, int64_t r1) { collinear_key_rows(plan.kind, plan.tables, tbar, k_eff, r0, r1); });
    });
  });
}

void key_backward(Context&, const ops::CollinearOptions& options, const ops::CollinearKeyBackward& a) {
  const Plan plan = plan_of(options, a.rows);
  const auto dk_eff = a.dk_eff.view<float, 4>();
  const auto dtbar = a.dtbar.view<float, 4>();
  over_rows(a.dk_eff, [&](int64_t r0, int64_t r1) {
    collinear_tbar_rows_backward(plan.kind, plan.tables, dk_eff, dtbar, r0, r1);
  });
}

void fold_backward(Context&, const ops::CollinearOptions&, const ops::CollinearFoldBackward& a) {
  ops::with_float_type(a.t.dtype, [&](auto zero) {
    const auto t = a.t.view<decltype(zero), 4>();
    const auto dt = a.dt.view<decltype(zero), 4>();
    const auto dtbar = a.dtbar.view<float, 4>();
    over_rows(a.t, [&](int64_t r0, int64_t r1) { collinear_fold_rows_backward(a.R, t, dtbar, dt, r0, r1); });
  });
}

void forward(Context&, const ops::CollinearOptions& options, const ops::CollinearForward& a) {
  const ops::RopeRows keys = rows_of_keys(a.rows, a.key_rows);
  query_by(plan_of(options, a.rows), {.rows = a.rows, .q = a.q, .q_eff = a.q_eff});
  key_from_t_by(plan_of(options, keys), {.rows = keys, .t = a.t, .k_eff = a.k_eff});
}

void backward(Context&, const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  const Plan plan = plan_of(options, a.rows);
  const RopeTables key_tables = plan_of(options, rows_of_keys(a.rows, a.key_rows)).tables;
  ops::with_float_type(a.q.dtype, [&](auto zero) { backward_as<decltype(zero)>(plan, key_tables, a); });
}

bool supports(const ops::CollinearCase& c) { return !c.official_partial; }

}  // namespace

const ops::CollinearImpl collinear_row{
    .name = "cpu", .supports = supports, .run = {forward, backward, fold, query, key, key_backward, fold_backward}};

}  // namespace coca::cpu
