// Attention as graphs of cuDNN. CudnnGraphs asks the real cuDNN for engines on an NVIDIA H200, whose description is in
// h200.json (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION). Graphs are checked and lowered, and an engine is proposed;
// this needs neither a GPU nor a driver. CudnnCalls uses a fake cuDNN, which records what it is told to compute.
// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <fstream>
#include <optional>
#include <sstream>
#include <tuple>
#include <vector>

#include "coca/kernels/cuda/attention_graph.h"
#include "coca/kernels/cuda/memory.h"
#include "coca/tensor/tensor.h"
#include "cuda_runtime/fake_cudart.h"
#include "cuda_runtime/fake_cudnn.h"
#include "support/message.h"

namespace coca::cudnn_test {
namespace {

using cuda::AttentionAddresses;
using cuda::AttentionGraph;
using testing::HasSubstr;
using Pass = AttentionGraph::Pass;
using Diagonal = AttentionGraph::Diagonal;
using Order = AttentionGraph::Order;

[[maybe_unused]] const bool replaced = (cuda::replace_cudnn(&test::find_in_cudnn), true);

// With tensors that are not views.
AttentionGraph packed(AttentionGraph g) {
  const AttentionGraph::Steps queries{.b = g.N * g.H * g.D, .n = g.H * g.D, .h = g.D},
      keys{.b = g.S * g.G * g.D, .n = g.G * g.D, .h = g.D};
  g.q = g.o = g.d_o = g.dq = queries;
  g.k = g.v = g.dk = g.dv = keys;
  return g;
}
// Causal.
AttentionGraph graph(Pass pass, int64_t D = 64, int64_t N = 512, int64_t H = 8, int64_t G = 8,
                     Order order = Order::kAny) {
  AttentionGraph g;
  g.pass = pass;
  g.diagonal = Diagonal::kFromStart;
  g.lse = AttentionGraph::Lse::kPacked;
  g.order = order;
  g.B = 2, g.N = N, g.S = N, g.H = H, g.G = G, g.D = D;
  g.scale = 0.125f;
  return packed(g);
}

class CudnnGraphs : public testing::Test {
 protected:
  void SetUp() override {
    test::fake_cudnn() = {};
    test::fake_cuda() = {.gpus = {{.name = "Fake H200", .major = 9, .minor = 0}}};
    if (!test::real_cudnn()) GTEST_SKIP() << "cuDNN is not installed";
    // cuDNN refuses every engine if there is no libcuda. The toolkit's stub has its name and fails each call.
    static const bool driver =
        ::dlopen("libcuda.so.1", RTLD_NOW) != nullptr || ::dlopen(COCA_LIBCUDA_STUB, RTLD_NOW) != nullptr;
    if (!driver) GTEST_SKIP() << "there is neither a driver nor " << COCA_LIBCUDA_STUB;
    std::ifstream file(COCA_SOURCE_DIR "/tests/cuda_runtime/h200.json");
    std::ostringstream text;
    text << file.rdbuf();
    h200_ = text.str();
    ASSERT_FALSE(h200_.empty());
    if (const std::string error = reason(graph(Pass::kForward)); error.find("too old") != std::string::npos)
      GTEST_SKIP() << error;
  }
  // Why there is no engine; empty if there is one.
  std::string reason(const AttentionGraph& g) const {
    std::string engine;
    const std::string text = test::message([&] { engine = cuda::proposed_engine(g, h200_, 90); });
    return engine.empty() ? text : "";
  }
  void expect_engine(const AttentionGraph& g) const {
    EXPECT_EQ(reason(g), "") << (g.pass == Pass::kForward ? "forward" : "backward") << " B=" << g.B << " N=" << g.N
                             << " S=" << g.S << " H=" << g.H << " G=" << g.G << " D=" << g.D << " diagonal "
                             << static_cast<int>(g.diagonal) << " window " << g.window << " mask " << g.mask_step
                             << (g.order == Order::kFixed ? " fixed order" : "");
  }
  // Both passes, the backward one with sums in any order and in a fixed one.
  void expect_engines(AttentionGraph g) const {
    g.pass = Pass::kForward;
    expect_engine(g);
    g.pass = Pass::kBackward;
    for (const Order order : {Order::kAny, Order::kFixed}) {
      g.order = order;
      expect_engine(g);
    }
  }
  std::string h200_;
};

TEST_F(CudnnGraphs, HaveAnEngineForEachHeadDim) {
  for (int64_t D = 8; D <= 256; D += 8) expect_engines(graph(Pass::kForward, D));
}

TEST_F(CudnnGraphs, HaveAnEngineForEachLength) {
  for (const int64_t N : {2, 3, 17, 64, 100, 127, 128, 129, 1000, 4096, 32768})
    for (const int64_t D : {64, 128}) expect_engines(graph(Pass::kForward, D, N));
}

TEST_F(CudnnGraphs, HaveAnEngineForEachGroup) {
  for (const auto& [H, G] : {std::pair<int64_t, int64_t>{1, 1}, {8, 1}, {8, 2}, {6, 3}, {32, 8}, {40, 40}})
    expect_engines(graph(Pass::kForward, 128, 512, H, G));
}

TEST_F(CudnnGraphs, HaveAnEngineForEachMask) {
  for (const int64_t D : {64, 128, 256}) {
    for (const Diagonal diagonal : {Diagonal::kNone, Diagonal::kFromStart, Diagonal::kFromEnd})
      for (const int64_t S : {512, 600, 1024}) {
        if (diagonal == Diagonal::kFromStart && S != 512) continue;
        AttentionGraph g = graph(Pass::kForward, D);
        g.diagonal = diagonal;
        g.S = S;
        g = packed(g);
        expect_engines(g);
        if (diagonal == Diagonal::kNone) continue;
        for (const int64_t window : {1, 7, 128, 500}) {
          g.window = window;
          expect_engines(g);
        }
      }
  }
}

TEST_F(CudnnGraphs, HaveAnEngineWithDocuments) {
  for (const int64_t D : {64, 128, 256})
    for (const int64_t N : {512, 1001})
      for (const int64_t window : {0, 100}) {
        AttentionGraph g = graph(Pass::kForward, D, N, 8, 2);
        g.window = window;
        g.mask_step = (N + 7) / 8 * 8;
        expect_engines(g);
      }
}

TEST_F(CudnnGraphs, HaveAnEngineForViewsAndWithoutStatistics) {
  AttentionGraph g = graph(Pass::kForward);
  const int64_t row = 3 * g.H * g.D;  // q, k and v from one projection
  g.q = g.k = g.v = g.dq = g.dk = g.dv = {.b = g.N * row, .n = row, .h = g.D};
  expect_engines(g);
  g.lse = AttentionGraph::Lse::kNone;
  g.pass = Pass::kForward;
  expect_engine(g);
}

TEST_F(CudnnGraphs, ThatCudnnDoesNotTakeAreRefusedInWords) {
  EXPECT_THAT(reason(graph(Pass::kBackward, 264)), HasSubstr("less than or equal to 256"));
  AttentionGraph g = graph(Pass::kForward);
  g.q.n += 4;
  EXPECT_THAT(reason(g), HasSubstr("not a multiple of the tensor's 16-byte alignment"));
}

// Addresses and descriptions that reach cuDNN.
class CudnnCalls : public testing::Test {
 protected:
  CudnnCalls() {
    test::fake_cudnn() = {.active = true};
    const test::FakeGpu gpu{.major = 9, .minor = 0, .bytes = size_t{16} << 20};
    test::fake_cuda() = {.gpus = {gpu, gpu, gpu}};
    memory = cuda::open_memory(cuda::gpus().list.at(0));
    cx.emplace(memory.get());
  }
  void* made(const Dims& shape, DType type = DType::kBF16) {
    return tensors.emplace_back(shape, type, memory.get()).ref().data;
  }
  AttentionAddresses addresses(const AttentionGraph& g) {
    const Dims queries{g.B, g.N, g.H, g.D}, keys{g.B, g.S, g.G, g.D};
    AttentionAddresses a{.q = made(queries), .k = made(keys), .v = made(keys), .o = made(queries)};
    if (g.mask_step > 0) a.mask = made({g.B, g.N, g.mask_step});
    if (g.lse != AttentionGraph::Lse::kNone) a.lse = made({g.B, g.H, g.N}, DType::kF32);
    if (g.pass == Pass::kForward) return a;
    a.d_o = made(queries);
    a.dq = made(queries);
    a.dk = made(keys);
    a.dv = made(keys);
    return a;
  }
  void run(const AttentionGraph& g, const AttentionAddresses& a) {
    const cuda::PlannedAttention planned = cuda::plan_attention(*cx, g);
    ASSERT_TRUE(planned.plan) << planned.why_not;
    workspace_bytes = planned.plan->workspace();
    workspace = cx->scratch(workspace_bytes);
    planned.plan->run(*cx, a, workspace);
  }

  std::unique_ptr<DeviceMemory> memory;
  std::optional<Context> cx;
  std::deque<Tensor> tensors;
  void* workspace = nullptr;
  size_t workspace_bytes = 0;
};

using Shape = std::vector<int64_t>;
using Wanted = std::tuple<void*, Shape, Shape>;

// What is described under an id, for the address that is passed for it.
Wanted described(const test::Executed& e, int64_t id) {
  const test::FakeTensor& t = e.tensors.at(id);
  return {e.addresses.at(id), t.shape, t.strides};
}

void expect_inside_the_gpu(const test::Executed& e) {
  for (const auto& [id, p] : e.addresses) {
    const test::FakeTensor& t = e.tensors.at(id);
    if (t.by_value) continue;
    int64_t last = 0;
    for (size_t i = 0; i < t.shape.size(); ++i) last += (t.shape[i] - 1) * t.strides[i];
    const int64_t size = t.type == CUDNN_DATA_BFLOAT16 ? 2 : 4;
    EXPECT_TRUE(test::on_fake_gpu(p, static_cast<size_t>((last + 1) * size))) << id;
  }
}

TEST_F(CudnnCalls, DescribeEveryTensor) {
  for (const bool mask : {false, true})
    for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
      AttentionGraph g = graph(pass, 16, 20, 4, 2, Order::kFixed);
      g.window = 7;
      g.mask_step = mask ? 24 : 0;
      const AttentionAddresses a = addresses(g);
      run(g, a);
      ASSERT_EQ(test::fake_cudnn().executed.size(), 1u);
      const test::Executed e = test::fake_cudnn().executed.back();
      test::fake_cudnn().executed.clear();
      const Shape queries{2, 4, 20, 16}, query_steps{1280, 16, 64, 1}, keys{2, 2, 20, 16}, key_steps{640, 16, 32, 1},
          rows{2, 4, 20, 1}, row_steps{80, 20, 1, 1};
      EXPECT_EQ(described(e, 1), Wanted(a.q, queries, query_steps));
      EXPECT_EQ(e.addresses.at(2), a.k);
      EXPECT_EQ(e.addresses.at(3), a.v);
      EXPECT_EQ(described(e, 5), Wanted(a.o, queries, query_steps));
      EXPECT_EQ(described(e, 6), Wanted(a.lse, rows, row_steps));
      EXPECT_EQ(e.tensors.at(6).type, CUDNN_DATA_FLOAT);
      if (mask) {
        EXPECT_EQ(described(e, 4), Wanted(a.mask, Shape({2, 1, 20, 20}), Shape({480, 480, 24, 1})));
        EXPECT_EQ(e.tensors.at(4).type, CUDNN_DATA_BFLOAT16);
      }
      if (pass == Pass::kBackward) {
        EXPECT_EQ(described(e, 7), Wanted(a.d_o, queries, query_steps));
        EXPECT_EQ(described(e, 8), Wanted(a.dq, queries, query_steps));
        EXPECT_EQ(described(e, 9), Wanted(a.dk, keys, key_steps));
        EXPECT_EQ(described(e, 10), Wanted(a.dv, keys, key_steps));
      }
      expect_inside_the_gpu(e);
      EXPECT_EQ(e.stream, cuda::use_stream(*memory));
      const auto behind = static_cast<std::byte*>(e.workspace) - static_cast<std::byte*>(workspace);
      EXPECT_TRUE(behind >= 0 && static_cast<size_t>(behind) + 4096 <= workspace_bytes);
    }
}

TEST_F(CudnnCalls, EachFailureIsNamed) {
  const AttentionGraph g = graph(Pass::kForward, 16, 20);
  const AttentionAddresses a = addresses(g);
  const auto error = [&](const char* failing) {
    test::fake_cudnn().failing = failing;
    return test::message([&] { run(g, a); });
  };
  EXPECT_THAT(error("cudnnSetStream"), HasSubstr("[cuda] cudnnSetStream: an error, says the fake"));
  EXPECT_THAT(error("cudnnBackendExecute"), HasSubstr("[cuda] cuDNN's attention of B=2 N=20 S=20 H=8 G=8 D=16: "));
  test::fake_cudnn().failing = "plan";
  const cuda::PlannedAttention planned = cuda::plan_attention(*cx, g);
  EXPECT_FALSE(planned.plan);
  EXPECT_NE(planned.why_not, "");
  EXPECT_EQ(test::fake_cudnn().open, 0);
  const auto other = cuda::open_memory(cuda::gpus().list.at(1));  // whose handle does not exist yet
  Context there(other.get());
  test::fake_cudnn().failing = "cudnnCreate";
  EXPECT_EQ(test::message([&] { cuda::plan_attention(there, g); }), "[cuda] cudnnCreate: an error, says the fake");
}

TEST(Cudnn, MissingOrOldIsAnError) {
  EXPECT_THAT(test::message([] { cuda::open_cudnn("libcudnn.so.none"); }),
              testing::AllOf(HasSubstr("[cuda] libcudnn.so.none cannot be opened: "),
                             HasSubstr("install cuDNN 9.8 or newer"), HasSubstr("--force-impl attention:cuda")));
  EXPECT_THAT(test::message([] { cuda::check_cudnn_version(90701); }),
              testing::AllOf(HasSubstr("[cuda] cuDNN 9.7.1 is too old; install 9.8 or newer"),
                             HasSubstr("--force-impl attention:cuda")));
  EXPECT_NO_THROW(cuda::check_cudnn_version(90800));
}

}  // namespace
}  // namespace coca::cudnn_test
