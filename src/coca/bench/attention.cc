// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/attention.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "coca/base/count.h"
#include "coca/base/sizes.h"
#include "coca/bench/einsum_attention.h"
#include "coca/bench/machine.h"
#include "coca/bench/model_shape.h"
#include "coca/model/rope_table.h"
#include "coca/ops/attention.h"
#include "coca/ops/collinear.h"

namespace coca::bench {

namespace {

using Form = AttentionForm;

// 32 roundings: the chain rotates, folds, multiplies, exponentiates and sums, each step a few roundings deep,
// and their errors partly cancel in the norm. A wrong mask, head or angle moves it by tens of per cent.
constexpr double kRoundings = 32;
constexpr int64_t kCheckLength = 67;  // ragged against every block

struct Shape {
  int64_t B, N, H, G, D;
  int64_t window = 0, documents = 1;
};

// Where the document of token n begins.
int64_t document_start(const Shape& s, int64_t n) {
  const int64_t document = n * s.documents / s.N;
  return (document * s.N + s.documents - 1) / s.documents;
}

int64_t visible_pairs(const Shape& s) {  // of one sequence and head
  int64_t pairs = 0;
  for (int64_t n = 0; n < s.N; ++n) {
    const int64_t window = s.window > 0 ? n + 1 - s.window : 0;
    pairs += n + 1 - std::max(window, document_start(s, n));
  }
  return pairs;
}

ops::AttentionOptions mask_of(const Shape& s) {
  if (s.window == 0) return {};
  return {.mask = ops::Mask::kSlidingWindow, .window = s.window};
}

bool is_coca(Form f) { return f == Form::kCocaSlack || f == Form::kCocaStrict || f == Form::kCocaTied; }
bool is_einsum(Form f) { return f == Form::kEinsum || f == Form::kEinsum3d; }
EinsumForm einsum_form(Form f) { return f == Form::kEinsum3d ? EinsumForm::kTriples : EinsumForm::kPairs; }

ops::CollinearOptions collinear_options(Form f) {
  return {.kind = f == Form::kCocaStrict ? ops::Collinear::kStrict
                  : f == Form::kCocaTied ? ops::Collinear::kTied
                                         : ops::Collinear::kSlack};
}

// q, t (or k), v and the gradient of o, the same for every kind.
struct Inputs {
  Inputs(Context& cx, const Shape& shape, DType dtype)
      : s(shape),
        q(to_device(cx, random_tensor({s.B, s.N, s.H, s.D}, dtype, 11))),
        t(to_device(cx, random_tensor({s.B, s.N, s.G, s.D}, dtype, 12))),
        v(to_device(cx, random_tensor({s.B, s.N, s.G, s.D}, dtype, 13))),
        d_o(to_device(cx, random_tensor({s.B, s.N, s.H, s.D}, dtype, 14))),
        slopes({s.H}, DType::kF32, cx.memory()),
        table(cx.memory()) {
    model::ModelSpec spec;  // only for its positions
    spec.D = spec.R = s.D;
    table.build(model::rope_rotation(spec, s.N), 0, s.N);
    rows = table.rows(0, s.N);
    std::ranges::copy(ops::alibi_slopes(s.H), slopes.host().as<float>());
    slopes.send();
    if (s.documents == 1) return;
    starts = SentTensor({s.B, s.N}, DType::kI32, cx.memory());
    for (int64_t i = 0; i < s.B * s.N; ++i)
      starts.host().as<int32_t>()[i] = static_cast<int32_t>(document_start(s, i % s.N));
    starts.send();
  }
  Inputs(const Inputs&) = delete;

  Shape s;
  Tensor q, t, v, d_o;
  SentTensor slopes, starts;
  model::RopeTable table;
  ops::RopeRows rows;
};

// One kind: its outputs, and the two passes as a layer runs them.
class AttentionCase {
 public:
  AttentionCase(Context& cx, Form form, const Inputs& in, Gradients gradients)
      : cx_(cx), form_(form), in_(in), o_(in.q.shape(), in.q.dtype(), cx.memory()) {
    const Shape& s = in.s;
    const DType dtype = in.q.dtype();
    if (is_einsum(form)) {
      COCA_CHECK(dtype == DType::kF32, "[bench] {} runs in F32 only, not {}", enum_name(form), dtype_name(dtype));
      COCA_CHECK(!cx.memory(), "[bench] {} runs on the CPU only", enum_name(form));
      einsum_.emplace(einsum_form(form), EinsumShape{s.B, s.N, s.H, s.G, s.D}, gradients);
    } else if (rotates()) {
      q_eff_ = Tensor(in.q.shape(), dtype, cx.memory());
      k_eff_ = Tensor(in.t.shape(), dtype, cx.memory());
    }
    if (gradients == Gradients::kNone) return;
    if (!is_einsum(form)) lse_ = Tensor({s.B, s.H, s.N}, DType::kF32, cx.memory());
    dq_ = Tensor(in.q.shape(), dtype, cx.memory());
    dt_ = Tensor(in.t.shape(), dtype, cx.memory());
    dv_ = Tensor(in.v.shape(), dtype, cx.memory());
  }
  AttentionCase(const AttentionCase&) = delete;

  void forward() {
    if (einsum_) return einsum_->forward(cx_, {.rows = in_.rows, .q = in_.q, .t = in_.t, .v = in_.v, .o = o_});
    if (is_coca(form_)) {
      ops::collinear_forward(cx_, collinear_options(form_),
                             {.rows = in_.rows, .q = in_.q, .t = in_.t, .q_eff = q_eff_, .k_eff = k_eff_});
    } else if (form_ == Form::kRope) {
      ops::rope_forward(cx_, {.rows = in_.rows, .x = in_.q, .y = q_eff_});
      ops::rope_forward(cx_, {.rows = in_.rows, .x = in_.t, .y = k_eff_});
    }
    ops::attention_forward(
        cx_, mask_of(in_.s),
        {.q = q(), .k = k(), .v = in_.v, .slopes = slopes(), .document_start = in_.starts.ref(), .o = o_, .lse = lse_});
  }

  void backward() {
    if (einsum_)
      return einsum_->backward(
          cx_, {.rows = in_.rows, .q = in_.q, .t = in_.t, .v = in_.v, .d_o = in_.d_o, .dq = dq_, .dt = dt_, .dv = dv_});
    ops::attention_backward(cx_, mask_of(in_.s),
                            {.q = q(),
                             .k = k(),
                             .v = in_.v,
                             .slopes = slopes(),
                             .document_start = in_.starts.ref(),
                             .o = o_,
                             .lse = lse_,
                             .d_o = in_.d_o,
                             .dq = dq_,
                             .dk = dt_,
                             .dv = dv_});
    if (is_coca(form_)) {
      ops::collinear_backward(
          cx_, collinear_options(form_),
          {.rows = in_.rows, .q = in_.q, .t = in_.t, .dq_eff = dq_, .dk_eff = dt_, .dq = dq_, .dt = dt_});
    } else if (form_ == Form::kRope) {
      ops::rope_backward(cx_, {.rows = in_.rows, .dy = dq_, .dx = dq_});
      ops::rope_backward(cx_, {.rows = in_.rows, .dy = dt_, .dx = dt_});
    }
  }

  Form form() const { return form_; }
  TensorRef o() const { return o_; }
  TensorRef dq() const { return dq_; }
  TensorRef dt() const { return dt_; }
  TensorRef dv() const { return dv_; }

 private:
  bool rotates() const { return form_ == Form::kRope || is_coca(form_); }
  TensorRef q() const { return rotates() ? q_eff_ : in_.q; }
  TensorRef k() const { return rotates() ? k_eff_ : in_.t; }
  TensorRef slopes() const { return form_ == Form::kAlibi ? in_.slopes.ref() : TensorRef(); }

  Context& cx_;
  Form form_;
  const Inputs& in_;
  Tensor q_eff_, k_eff_, o_, lse_, dq_, dt_, dv_;
  std::optional<EinsumAttention> einsum_;
};

// All kinds, the one to compare with first, each once.
std::vector<Form> forms_of(const AttentionOptions& o) {
  std::vector<Form> forms;
  if (o.against) forms.push_back(*o.against);
  for (const Form f : o.kind)
    if (std::ranges::find(forms, f) == forms.end()) forms.push_back(f);
  return forms;
}

void check_options(const AttentionOptions& o) {
  COCA_CHECK(!o.kind.empty(), "attention: none given");
  COCA_CHECK(!o.lengths.empty(), "lengths: none given");
  for (const int64_t N : o.lengths) COCA_CHECK(N >= 1, "lengths holds {}; expected at least 1", N);
  COCA_CHECK(o.batch >= 1, "batch is {}; expected at least 1", o.batch);
  check_heads({.heads = o.heads, .kv_heads = o.kv_heads, .head_dim = o.head_dim});
  COCA_CHECK(o.memory_cap > 0, "memory_cap is {}; expected more than 0", o.memory_cap);
  COCA_CHECK(o.window >= 0, "window is {}; expected 0 (none) or more", o.window);
  for (const int64_t N : o.lengths)  // q, k, v and the output
    check_memory("attention",
                 {{"batch", o.batch}, {"lengths", N}, {"heads", o.heads}, {"head_dim", o.head_dim}, {"bytes", 16}},
                 "lower one of these");
  for (const int64_t N : o.lengths)
    COCA_CHECK(o.documents >= 1 && o.documents <= N, "documents is {}; expected 1 to the shortest of lengths, {}",
               o.documents, N);
  for (const Form form : forms_of(o))
    COCA_CHECK(!is_einsum(form) || (o.window == 0 && o.documents == 1),
               "{} computes every pair: give it no window and no documents", enum_name(form));
  check_repeats(o.repeat);
}

Shape shape_of(const AttentionOptions& o, int64_t N) {
  return {.B = o.batch,
          .N = N,
          .H = o.heads,
          .G = o.kv_heads > 0 ? o.kv_heads : o.heads,
          .D = o.head_dim,
          .window = o.window,
          .documents = o.documents};
}

Gradients gradients_of(Pass pass) { return pass == Pass::kForward ? Gradients::kNone : Gradients::kWanted; }

int64_t passes_of(const AttentionOptions& o) { return o.pass == Pass::kBoth ? 2 : 1; }  // timed apart

void check_answer(Context& cx, Form form, const AttentionOptions& o) {
  Shape s = shape_of(o, kCheckLength);
  s.B = 1;
  // Of a window of one token, and of documents of one, dq is zero, and roundings are no share of it.
  if (s.window > 0) s.window = std::clamp<int64_t>(s.window, 2, kCheckLength / 3);
  s.documents = std::min(s.documents, kCheckLength / 3);
  Context plain = reference_context();
  const Inputs in(cx, s, dtype_of(o.dtype)), plain_in(plain, s, dtype_of(o.dtype));
  AttentionCase actual(cx, form, in, Gradients::kWanted);
  AttentionCase expected(plain, is_einsum(form) ? Form::kCocaSlack : form, plain_in, Gradients::kWanted);
  for (AttentionCase* c : {&actual, &expected}) {
    c->forward();
    c->backward();
  }
  const auto check = [&](const char* name, TensorRef a, TensorRef b) {
    check_close(a, b, o.dtype, kRoundings, fmt::format("{} of {}", name, enum_name(form)));
  };
  check("o", actual.o(), expected.o());
  check("dq", actual.dq(), expected.dq());
  check("dt", actual.dt(), expected.dt());
  check("dv", actual.dv(), expected.dv());
}

bool fits(Form form, const AttentionOptions& o, int64_t N, std::vector<std::string>& notes) {
  if (!is_einsum(form)) return true;
  const Shape s = shape_of(o, N);
  const int64_t bytes = EinsumAttention::bytes(einsum_form(form), {s.B, s.N, s.H, s.G, s.D}, gradients_of(o.pass));
  if (static_cast<double>(bytes) <= o.memory_cap * 0x1p30) return true;
  notes.push_back(fmt::format("{} at length {} is left out: it would hold {}, and --memory-cap is {:g} GiB",
                              enum_name(form), N, report::format_bytes(bytes), o.memory_cap));
  return false;
}

AttentionResult result_of(const AttentionOptions& o, int64_t N, Form form, Pass pass, const Timing& seconds) {
  const auto tokens = static_cast<double>(o.batch * N);
  const double pairs = static_cast<double>(o.batch * o.heads) * static_cast<double>(visible_pairs(shape_of(o, N)));
  const double products = pass == Pass::kForward ? 4 : pass == Pass::kBackward ? 10 : 14;
  return {.length = N,
          .kind = form,
          .pass = pass,
          .seconds = seconds,
          .gflops = 1e-9 * products * pairs * static_cast<double>(o.head_dim) / seconds.median,
          .tokens_per_second = tokens / seconds.median};
}

// What the time of a run roughly depends on.
double pairs_of(int64_t N) { return static_cast<double>(N) * static_cast<double>(N); }

void bench_length(Context& cx, const AttentionOptions& o, int64_t N, ProgressCounter& progress,
                  AttentionReport& report) {
  progress.work_of_step = pairs_of(N);
  progress.begin(fmt::format("making {}", counted(N, "token")));
  const Inputs in(cx, shape_of(o, N), dtype_of(o.dtype));
  MatrixProduct product(cx, dtype_of(o.dtype));
  std::vector<std::unique_ptr<AttentionCase>> cases;
  std::vector<Contestant> contestants{product.contestant()};  // first and last, so that a slow moment hits one of two
  for (const Form form : forms_of(o)) {
    if (!fits(form, o, N, report.notes)) {
      progress.plan(-planned_steps(passes_of(o), o.repeat), pairs_of(N));
      continue;
    }
    AttentionCase& c = *cases.emplace_back(std::make_unique<AttentionCase>(cx, form, in, gradients_of(o.pass)));
    const std::string name = fmt::format("{} {}", enum_name(form), N);
    if (o.pass == Pass::kBackward) c.forward();  // what backward needs
    if (o.pass != Pass::kBackward)
      contestants.push_back({name + " forward", [&c, &cx] {
                               c.forward();
                               cx.synchronize();
                             }});
    if (o.pass != Pass::kForward)
      contestants.push_back({name + " backward", [&c, &cx] {
                               c.backward();
                               cx.synchronize();
                             }});
  }
  contestants.push_back(product.contestant());
  const std::vector<Timing> timings = measure_interleaved(contestants, o.repeat, progress);

  const double matrix = std::max(MatrixProduct::gflops(timings.front()), MatrixProduct::gflops(timings.back()));
  const size_t first = report.results.size();
  size_t at = 1;
  for (const auto& c : cases) {
    const auto add = [&](Pass pass, const Timing& t) { report.results.push_back(result_of(o, N, c->form(), pass, t)); };
    if (o.pass != Pass::kBackward) add(Pass::kForward, timings[at++]);
    if (o.pass != Pass::kForward) add(Pass::kBackward, timings[at++]);
    if (o.pass == Pass::kBoth) add(Pass::kBoth, timings[at - 2] + timings[at - 1]);
  }
  const size_t passes = cases.empty() ? 1 : (report.results.size() - first) / cases.size();
  const bool compared = o.against && !cases.empty() && cases.front()->form() == *o.against;
  for (size_t i = first; i < report.results.size(); ++i) {
    AttentionResult& r = report.results[i];
    r.matrix_gflops = matrix;
    if (compared) r.ratio = ratio_of(r.seconds, report.results[first + (i - first) % passes].seconds);
  }
}

}  // namespace

AttentionReport bench_attention(Context& cx, const AttentionOptions& o, ProgressCounter progress) {
  check_options(o);
  const std::vector<Form> forms = forms_of(o);
  const auto count = static_cast<int64_t>(forms.size());
  for (const int64_t N : o.lengths) progress.plan(planned_steps(count * passes_of(o) + 2, o.repeat), pairs_of(N));
  for (const Form form : forms) {
    progress.begin(fmt::format("checking {} against the plain loops", enum_name(form)));
    check_answer(cx, form, o);
  }
  AttentionReport report;
  for (const int64_t N : o.lengths) bench_length(cx, o, N, progress, report);
  return report;
}

report::Table attention_table(const AttentionOptions& o, const AttentionReport& report) {
  report::Table table{.title = "",
                      .header = {"length", "attention", "pass", "ms", "+-", "GFLOP/s", "of matrix rate", "tokens/s"},
                      .rows = {},
                      .align = {report::Align::kRight, report::Align::kLeft, report::Align::kLeft}};
  if (o.against) table.header.push_back(fmt::format("x {}", enum_name(*o.against)));
  for (const AttentionResult& r : report.results) {
    table.rows.push_back({fmt::format("{}", r.length), std::string(enum_name(r.kind)), std::string(enum_name(r.pass)),
                          report::format_number(1e3 * r.seconds.median), r.seconds.spread_text(),
                          report::format_number(r.gflops), fmt::format("{:.1f} %", 100 * r.gflops / r.matrix_gflops),
                          grouped(static_cast<int64_t>(r.tokens_per_second))});
    if (o.against) table.rows.back().push_back(r.ratio ? fmt::format("{:.3f}", r.ratio->median) : "-");
  }
  return table;
}

nlohmann::ordered_json to_json(const AttentionResult& r) {
  nlohmann::ordered_json j;
  j["length"] = r.length;
  j["attention"] = std::string(enum_name(r.kind));
  j["pass"] = std::string(enum_name(r.pass));
  add_timing(j, "seconds", r.seconds);
  add_rates(j, r.gflops, r.matrix_gflops);
  j["tokens_per_second"] = r.tokens_per_second;
  add_ratio(j, r.ratio);
  return j;
}

}  // namespace coca::bench
