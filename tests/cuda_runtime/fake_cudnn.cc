// SPDX-License-Identifier: Apache-2.0
#include "cuda_runtime/fake_cudnn.h"

#include <dlfcn.h>

#include <cstring>
#include <utility>

namespace coca::test {

namespace {

struct Descriptor {
  cudnnBackendDescriptorType_t type;
  std::map<cudnnBackendAttributeName_t, std::vector<std::byte>> attributes;
  std::map<int64_t, FakeTensor> tensors;  // of a plan

  template <typename T>
  std::vector<T> values(cudnnBackendAttributeName_t name) const {
    const auto found = attributes.find(name);
    if (found == attributes.end()) return {};
    std::vector<T> all;
    for (size_t i = 0; i < found->second.size(); i += sizeof(T)) {
      T value;
      std::memcpy(&value, found->second.data() + i, sizeof value);
      all.push_back(value);
    }
    return all;
  }
};

std::map<int64_t, FakeTensor> described;  // since the last plan
cudaStream_t stream = nullptr;

void* real(const char* function) {
  static void* library = ::dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
  return library == nullptr ? nullptr : ::dlsym(library, function);
}
// The real function with the type of its declaration, which is not linked.
#define COCA_REAL(function) reinterpret_cast<decltype(&function)>(real(#function))
bool fails(const char* function) { return fake_cudnn().failing == function; }
Descriptor& at(cudnnBackendDescriptor_t d) { return *static_cast<Descriptor*>(d); }

size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR: return 1;
    default: return 4;
  }
}

size_t version() { return real_cudnn() ? COCA_REAL(cudnnGetVersion)() : CUDNN_VERSION; }

cudnnStatus_t create_handle(cudnnHandle_t* handle) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnCreate)(handle);
  if (fails("cudnnCreate")) return CUDNN_STATUS_NOT_INITIALIZED;
  *handle = reinterpret_cast<cudnnHandle_t>(&fake_cudnn());
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t set_stream(cudnnHandle_t handle, cudaStream_t s) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnSetStream)(handle, s);
  stream = s;
  return fails("cudnnSetStream") ? CUDNN_STATUS_BAD_PARAM : CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t get_stream(cudnnHandle_t handle, cudaStream_t* s) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnGetStream)(handle, s);
  *s = stream;
  return CUDNN_STATUS_SUCCESS;
}
const char* error_string(cudnnStatus_t status) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnGetErrorString)(status);
  return "an error, says the fake";
}
void last_error_string(char* text, size_t size) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnGetLastErrorString)(text, size);
  if (size > 0) *text = 0;
}

cudnnStatus_t create(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* d) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnBackendCreateDescriptor)(type, d);
  *d = new Descriptor{.type = type, .attributes = {}, .tensors = {}};
  ++fake_cudnn().open;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t destroy(cudnnBackendDescriptor_t d) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnBackendDestroyDescriptor)(d);
  delete &at(d);
  --fake_cudnn().open;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  int64_t count, const void* values) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnBackendSetAttribute)(d, name, type, count, values);
  const auto* bytes = static_cast<const std::byte*>(values);
  at(d).attributes[name].assign(bytes, bytes + static_cast<size_t>(count) * size_of(type));
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t get(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  int64_t most, int64_t* count, void* values) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnBackendGetAttribute)(d, name, type, most, count, values);
  const bool one = name == CUDNN_ATTR_ENGINEHEUR_RESULTS || name == CUDNN_ATTR_ENGINECFG_ENGINE ||
                   name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX || name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE ||
                   name == CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE || name == CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT;
  if (count != nullptr) *count = one ? 1 : 0;
  if (name == CUDNN_ATTR_ENGINECFG_SHARED_MEMORY_USED) *static_cast<int32_t*>(values) = 1024;
  if (!one || values == nullptr || type != CUDNN_TYPE_INT64) return CUDNN_STATUS_SUCCESS;
  const bool bytes = name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE || name == CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE;
  *static_cast<int64_t*>(values) = bytes ? fake_cudnn().workspace : 1;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t finalize(cudnnBackendDescriptor_t d) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnBackendFinalize)(d);
  Descriptor& x = at(d);
  if (x.type == CUDNN_BACKEND_TENSOR_DESCRIPTOR)
    described[x.values<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID).at(0)] = {
        .shape = x.values<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS),
        .strides = x.values<int64_t>(CUDNN_ATTR_TENSOR_STRIDES),
        .type = x.values<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE).at(0),
        .by_value = x.values<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE) == std::vector<bool>{true}};
  if (x.type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) return CUDNN_STATUS_SUCCESS;
  x.tensors = std::exchange(described, {});
  return fails("plan") ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t execute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
  if (!fake_cudnn().active) return COCA_REAL(cudnnBackendExecute)(handle, plan, pack);
  if (fails("cudnnBackendExecute")) return CUDNN_STATUS_EXECUTION_FAILED;
  const auto ids = at(pack).values<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto addresses = at(pack).values<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  Executed& e = fake_cudnn().executed.emplace_back();
  for (size_t i = 0; i < ids.size(); ++i) e.addresses[ids[i]] = addresses.at(i);
  e.tensors = at(plan).tensors;
  e.workspace = at(pack).values<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE).at(0);
  e.stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

FakeCudnn& fake_cudnn() {
  static FakeCudnn fake;
  return fake;
}

bool real_cudnn() { return real("cudnnGetVersion") != nullptr; }

void* find_in_cudnn(const char* function) {
  static const std::map<std::string, void*> functions{
      {"cudnnGetVersion", reinterpret_cast<void*>(&version)},
      {"cudnnCreate", reinterpret_cast<void*>(&create_handle)},
      {"cudnnSetStream", reinterpret_cast<void*>(&set_stream)},
      {"cudnnGetStream", reinterpret_cast<void*>(&get_stream)},
      {"cudnnGetErrorString", reinterpret_cast<void*>(&error_string)},
      {"cudnnGetLastErrorString", reinterpret_cast<void*>(&last_error_string)},
      {"cudnnBackendCreateDescriptor", reinterpret_cast<void*>(&create)},
      {"cudnnBackendDestroyDescriptor", reinterpret_cast<void*>(&destroy)},
      {"cudnnBackendSetAttribute", reinterpret_cast<void*>(&set)},
      {"cudnnBackendGetAttribute", reinterpret_cast<void*>(&get)},
      {"cudnnBackendFinalize", reinterpret_cast<void*>(&finalize)},
      {"cudnnBackendExecute", reinterpret_cast<void*>(&execute)}};
  const auto found = functions.find(function);
  return found == functions.end() ? real(function) : found->second;
}

}  // namespace coca::test
