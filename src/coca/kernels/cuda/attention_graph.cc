// The only file that includes cudnn-frontend. Without it (COCA_CUDNN_FRONTEND is not defined), attention by cuDNN
// never runs.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/attention_graph.h"

#include "coca/base/error.h"

#ifdef COCA_CUDNN_FRONTEND

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "coca/kernels/cuda/memory.h"

namespace coca::cuda::frontend {

void* open(const char* library);
void* find(void* library, const char* function);

}  // namespace coca::cuda::frontend

// cudnn-frontend can look up all functions of cuDNN and CUDA at run time. It would search for a shared CUDA runtime;
// find() gives it the one that this program contains.
#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define dlopen(library, flags) ::coca::cuda::frontend::open(library)
#define dlsym(library, function) ::coca::cuda::frontend::find(library, function)
#include <cudnn_frontend.h>
#undef dlopen
#undef dlsym

namespace fe = cudnn_frontend;

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace coca::cuda {

namespace {

constexpr size_t kOldest = 90800;
constexpr const char* kInstead =
    "or choose the attention that coca contains, which is slower: --force-impl attention:cuda";

void* (*replacement)(const char* function) = nullptr;
char cuda_runtime;  // its address is the handle of the CUDA runtime that the program contains

}  // namespace

namespace frontend {

// Several names are tried; one of them suffices.
void* open(const char* library) {
  return std::string_view(library) == "libcudart.so.13" ? static_cast<void*>(&cuda_runtime) : nullptr;
}

void* find(void* library, const char* function) {
  if (library != static_cast<void*>(&cuda_runtime))
    return replacement != nullptr ? replacement(function) : ::dlsym(library, function);
  static const std::unordered_map<std::string_view, void*> functions {
    {"cudaDeviceGetAttribute", reinterpret_cast<void*>(&cudaDeviceGetAttribute)},
        {"cudaGetDevice", reinterpret_cast<void*>(&cudaGetDevice)},
        {"cudaGetErrorString", reinterpret_cast<void*>(&cudaGetErrorString)},
        {"cudaGetLastError", reinterpret_cast<void*>(&cudaGetLastError)},
        {"cudaMemcpyAsync", reinterpret_cast<void*>(&cudaMemcpyAsync)},
        {"cudaMemsetAsync", reinterpret_cast<void*>(&cudaMemsetAsync)},
        {"cudaRuntimeGetVersion", reinterpret_cast<void*>(&cudaRuntimeGetVersion)},
#if CUDART_VERSION >= 13000
        {"cudaStreamGetCaptureInfo", reinterpret_cast<void*>(&cudaStreamGetCaptureInfo)},
#else
        {"cudaStreamGetCaptureInfo_v2", reinterpret_cast<void*>(&cudaStreamGetCaptureInfo_v2)},
#endif
  };
  const auto found = functions.find(function);
  return found == functions.end() ? nullptr : found->second;
}

}  // namespace frontend

namespace {

// Before the first call of cudnn-frontend.
void use_cudnn() {
  static const bool done = [] {
    if (replacement == nullptr) fe::cudnn_dlhandle = open_cudnn(fmt::format("libcudnn.so.{}", CUDNN_MAJOR));
    check_cudnn_version(fe::detail::get_backend_version());
    return true;
  }();
  static_cast<void>(done);
}

// cudnn-frontend returns some errors and throws others.
template <typename Call>
std::string message_of(const Call& call) {
  try {
    fe::error_t error = call();
    return error.is_good() ? std::string() : error.get_message();
  } catch (const std::exception& e) {
    return e.what();
  }
}

enum Uid : int64_t { kQ = 1, kK, kV, kMask, kO, kLse, kDO, kDQ, kDK, kDV };

using Attributes = std::shared_ptr<fe::graph::Tensor_attributes>;

void describe(fe::graph::Tensor_attributes& t, Uid uid, const std::vector<int64_t>& shape,
              const std::vector<int64_t>& strides) {
  t.set_uid(uid).set_dim(shape).set_stride(strides);
}

// A graph of cuDNN, whose tensors are [B, H, N, D] with any strides.
class Builder {
 public:
  // For the present GPU, or for another one of this compute capability.
  explicit Builder(const AttentionGraph& g, int capability = 0) : g_(g), graph_(std::make_shared<fe::graph::Graph>()) {
    if (capability > 0) graph_->set_sm_version(capability);
    graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    if (g.pass == AttentionGraph::Pass::kForward)
      forward();
    else
      backward();
  }
  std::shared_ptr<fe::graph::Graph> graph() const { return graph_; }

 private:
  using Steps = AttentionGraph::Steps;

  Attributes input(const char* name, Uid uid, const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                   fe::DataType_t type = fe::DataType_t::BFLOAT16) {
    fe::graph::Tensor_attributes t;
    t.set_name(name).set_data_type(type);
    describe(t, uid, shape, strides);
    return graph_->tensor(t);
  }
  Attributes queries(const char* name, Uid uid, const Steps& s) {
    return input(name, uid, {g_.B, g_.H, g_.N, g_.D}, {s.b, s.h, s.n, 1});
  }
  Attributes keys(const char* name, Uid uid, const Steps& s) {
    return input(name, uid, {g_.B, g_.G, g_.S, g_.D}, {s.b, s.h, s.n, 1});
  }
  std::vector<int64_t> lse_shape() const { return {g_.B, g_.H, g_.N, 1}; }
  std::vector<int64_t> lse_strides() const { return {g_.H * g_.N, g_.N, 1, 1}; }
  void output(const Attributes& t, Uid uid, int64_t heads, int64_t tokens, const Steps& s) {
    describe(*t, uid, {g_.B, heads, tokens, g_.D}, {s.b, s.h, s.n, 1});
    t->set_output(true);
  }

  // What both passes have in common.
  template <typename Options>
  void set_rules(Options& options) {
    options.set_name("attention").set_attn_scale(g_.scale);
    if (g_.diagonal != AttentionGraph::Diagonal::kNone)
      options
          .set_diagonal_alignment(g_.diagonal == AttentionGraph::Diagonal::kFromStart
                                      ? fe::DiagonalAlignment_t::TOP_LEFT
                                      : fe::DiagonalAlignment_t::BOTTOM_RIGHT)
          .set_diagonal_band_right_bound(0);
    if (g_.window > 0) options.set_diagonal_band_left_bound(static_cast<int>(g_.window));
    if (g_.mask_step > 0)
      options.set_bias(
          input("mask", kMask, {g_.B, 1, g_.N, g_.S}, {g_.N * g_.mask_step, g_.N * g_.mask_step, g_.mask_step, 1}));
  }

  void forward() {
    fe::graph::SDPA_attributes options;
    options.set_generate_stats(g_.lse == AttentionGraph::Lse::kPacked)
        .set_implementation(fe::AttentionImplementation_t::COMPOSITE);  // as in the backward pass
    set_rules(options);
    auto [o, lse] = graph_->sdpa(queries("q", kQ, g_.q), keys("k", kK, g_.k), keys("v", kV, g_.v), options);
    output(o, kO, g_.H, g_.N, g_.o);
    if (g_.lse == AttentionGraph::Lse::kNone) return;
    describe(*lse, kLse, lse_shape(), lse_strides());
    lse->set_output(true).set_data_type(fe::DataType_t::FLOAT);
  }

  void backward() {
    fe::graph::SDPA_backward_attributes options;
    options.set_deterministic_algorithm(g_.order == AttentionGraph::Order::kFixed);
    set_rules(options);
    auto [dq, dk, dv] = graph_->sdpa_backward(
        queries("q", kQ, g_.q), keys("k", kK, g_.k), keys("v", kV, g_.v), queries("o", kO, g_.o),
        queries("do", kDO, g_.d_o), input("lse", kLse, lse_shape(), lse_strides(), fe::DataType_t::FLOAT), options);
    output(dq, kDQ, g_.H, g_.N, g_.dq);
    output(dk, kDK, g_.G, g_.S, g_.dk);
    output(dv, kDV, g_.G, g_.S, g_.dv);
  }

  const AttentionGraph& g_;
  std::shared_ptr<fe::graph::Graph> graph_;
};

// One for each device; they live as long as the process.
cudnnHandle_t handle_of(int device) {
  static std::map<int, cudnnHandle_t> handles;
  cudnnHandle_t& handle = handles[device];
  if (handle != nullptr) return handle;
  const cudnnStatus_t status = fe::detail::create_handle(&handle);
  COCA_CHECK_AS(kIo, status == CUDNN_STATUS_SUCCESS, "[cuda] cudnnCreate: {}", fe::detail::get_error_string(status));
  return handle;
}

std::mutex cudnn_mutex;  // handles, and the stream of each

class Plan : public AttentionPlan {
 public:
  Plan(std::shared_ptr<fe::graph::Graph> graph, const AttentionGraph& g) : graph_(std::move(graph)), g_(g) {
    int64_t bytes = 0;
    const std::string error = message_of([&] { return graph_->get_workspace_size(bytes); });
    COCA_CHECK_AS(kIo, error.empty(), "[cuda] size of cuDNN's workspace: {}", error);
    bytes_ = static_cast<size_t>(bytes);
  }
  size_t workspace() const override { return bytes_; }

  void run(Context& cx, const AttentionAddresses& a, void* workspace) override {
    const cudaStream_t stream = use_stream(*cx.memory());
    const std::lock_guard lock(cudnn_mutex);
    const cudnnHandle_t handle = handle_of(cx.device().index);
    std::unordered_map<int64_t, void*> addresses{{kQ, a.q}, {kK, a.k}, {kV, a.v}, {kO, a.o}};
    if (g_.mask_step > 0) addresses[kMask] = a.mask;
    if (g_.pass == AttentionGraph::Pass::kBackward)
      addresses.insert({{kLse, a.lse}, {kDO, a.d_o}, {kDQ, a.dq}, {kDK, a.dk}, {kDV, a.dv}});
    else if (g_.lse == AttentionGraph::Lse::kPacked)
      addresses[kLse] = a.lse;
    const cudnnStatus_t status = fe::detail::set_stream(handle, stream);
    COCA_CHECK_AS(kIo, status == CUDNN_STATUS_SUCCESS, "[cuda] cudnnSetStream: {}",
                  fe::detail::get_error_string(status));
    const std::string error = message_of([&] { return graph_->execute(handle, addresses, workspace); });
    COCA_CHECK_AS(kIo, error.empty(), "[cuda] cuDNN's attention of B={} N={} S={} H={} G={} D={}: {}", g_.B, g_.N, g_.S,
                  g_.H, g_.G, g_.D, error);
  }

 private:
  std::shared_ptr<fe::graph::Graph> graph_;
  AttentionGraph g_;
  size_t bytes_ = 0;
};

}  // namespace

void* open_cudnn(const std::string& library) {
  void* handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  COCA_CHECK_AS(
      kIo, handle != nullptr,
      "[cuda] {} cannot be opened: {}; install cuDNN 9.8 or newer (it comes with PyTorch), put its folder into "
      "LD_LIBRARY_PATH, {}",
      library, ::dlerror(), kInstead);
  return handle;
}

void check_cudnn_version(size_t version) {
  COCA_CHECK_AS(kIo, version >= kOldest,
                "[cuda] cuDNN {}.{}.{} is too old; install 9.8 or newer (it comes with PyTorch), put its folder into "
                "LD_LIBRARY_PATH before that of the old one, {}",
                version / 10000, version / 100 % 100, version % 100, kInstead);
}

void replace_cudnn(void* (*find)(const char* function)) { replacement = find; }

bool built_with_cudnn() { return true; }

PlannedAttention plan_attention(Context& cx, const AttentionGraph& g) {
  use_cudnn();
  use_stream(*cx.memory());  // makes its GPU the current one
  const std::lock_guard lock(cudnn_mutex);
  const cudnnHandle_t handle = handle_of(cx.device().index);
  const std::shared_ptr<fe::graph::Graph> graph = Builder(g).graph();
  std::string error = message_of([&] { return graph->build(handle, {fe::HeurMode_t::A}); });
  if (!error.empty()) return {.plan = nullptr, .why_not = std::move(error)};
  return {.plan = std::make_unique<Plan>(graph, g), .why_not = {}};
}

std::string proposed_engine(const AttentionGraph& g, std::string_view device, int capability) {
  use_cudnn();
  const auto properties = std::make_shared<fe::DeviceProperties>();
  const std::shared_ptr<fe::graph::Graph> graph = Builder(g, capability).graph();
  std::string name;
  const auto steps = [&] {
    fe::error_t error = properties->deserialize({device.begin(), device.end()});
    graph->set_device_properties(properties);
    if (error.is_good()) error = graph->validate();
    if (error.is_good()) error = graph->build_operation_graph();
    if (error.is_good()) error = graph->create_execution_plans({fe::HeurMode_t::A});
    if (error.is_good()) error = graph->get_plan_name_at_index(0, name);
    return error;
  };
  const std::string error = message_of(steps);
  COCA_CHECK_AS(kIo, error.empty(), "[cuda] cuDNN has no engine: {}", error);
  return name;
}

}  // namespace coca::cuda

#else

namespace coca::cuda {

bool built_with_cudnn() { return false; }
PlannedAttention plan_attention(Context&, const AttentionGraph&) {
  fail(ErrorKind::kInternal, "[cuda] built without cuDNN");
}

}  // namespace coca::cuda

#endif
