// tests/cuda_runtime/fake_cudnn.h - the functions of cuDNN that cudnn-frontend calls. As long as the fake is active,
// they keep the descriptions that they are given and check what is executed; else they are those of the real cuDNN.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cudnn.h>

#include <map>
#include <string>
#include <vector>

namespace coca::test {

struct FakeTensor {
  std::vector<int64_t> shape, strides;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  bool by_value = false;  // its address is the host's
};
// One call of cudnnBackendExecute.
struct Executed {
  std::map<int64_t, void*> addresses;     // by the tensors' ids
  std::map<int64_t, FakeTensor> tensors;  // as they were described for the plan
  void* workspace = nullptr;
  cudaStream_t stream = nullptr;
};
struct FakeCudnn {
  bool active = false;
  std::string failing;       // name of a function
  int64_t workspace = 4096;  // bytes that the engine needs
  std::vector<Executed> executed;
  int64_t open = 0;  // descriptors that have not been destroyed
};
FakeCudnn& fake_cudnn();
bool real_cudnn();  // whether the library is installed
// For cuda::replace_cudnn. Null for functions that neither the fake nor the real library has.
void* find_in_cudnn(const char* function);

}  // namespace coca::test
