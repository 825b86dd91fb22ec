// Device names are parsed and printed, and invalid names are rejected.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace coca::device_test {
namespace {

TEST(Device, NamesRoundTrip) {
  EXPECT_EQ(parse_device("cpu"), Device{});
  EXPECT_EQ(parse_device("cuda"), (Device{DeviceKind::kCuda, 0}));
  EXPECT_EQ(parse_device("cuda:12"), (Device{DeviceKind::kCuda, 12}));
  EXPECT_TRUE(parse_device("cpu").is_cpu());
  EXPECT_FALSE(parse_device("cuda:0").is_cpu());
  EXPECT_EQ(Device{}.text(), "cpu");
  for (const char* name : {"cpu", "cuda:0", "cuda:7"}) EXPECT_EQ(parse_device(name).text(), name);
}

TEST(Device, OtherNamesAreErrors) {
  for (const char* name : {"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:+1", "cuda:1x", "cuda: 1", "cuda:0:1", "cuda1",
                           "cpu:0", "cpu:", "cuda:99999999999999999999", ":0"}) {
    try {
      parse_device(name);
      ADD_FAILURE() << "accepted " << name;
    } catch (const Error& e) {
      EXPECT_EQ(e.what(), fmt::format("device \"{}\" does not exist; expected cpu, cuda or cuda:N", name));
    }
  }
}

}  // namespace
}  // namespace coca::device_test
