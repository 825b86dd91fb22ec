// SPDX-License-Identifier: Apache-2.0
#include "coca/base/device.h"

#include <charconv>

namespace coca {

std::string Device::text() const { return is_cpu() ? "cpu" : fmt::format("{}:{}", enum_name(kind), index); }

Device parse_device(std::string_view text, std::string_view others) {
  const size_t colon = text.find(':');
  Device device;
  bool good = false;
  for (const auto& [kind, name] : EnumTraits<DeviceKind>::names())
    if (text.substr(0, colon) == name) {
      device.kind = kind;
      good = true;
    }
  if (good && colon != std::string_view::npos) {
    const std::string_view digits = text.substr(colon + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), device.index);
    good = error == std::errc() && end == digits.data() + digits.size() && device.index >= 0 && !device.is_cpu();
  }
  COCA_CHECK(good, "device \"{}\" does not exist; expected cpu, {}cuda or cuda:N", text, others);
  return device;
}

}  // namespace coca
