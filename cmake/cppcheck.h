// Macros that confuse cppcheck. It does not see their definitions, since scripts/lint leaves out the headers of other
// libraries.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#define HWY_NAMESPACE N_SIMD
#define HWY_BEFORE_NAMESPACE() static_assert(true, "")
#define HWY_AFTER_NAMESPACE() static_assert(true, "")
#define HWY_ATTR
#define HWY_RESTRICT
#define HWY_INLINE inline
#define HWY_ONCE 1
#define HWY_EXPORT(function) static_assert(true, "")
#define HWY_DYNAMIC_DISPATCH(function) N_SIMD::function
