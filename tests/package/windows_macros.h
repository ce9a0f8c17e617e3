// SPDX-License-Identifier: Apache-2.0
// Names that Windows' headers take for macros, as they stand there: what a file sees that includes <windows.h> first.
// Forced into a file by -include. The standard library's own headers come before, as compilers' libraries for Windows
// know these macros and others do not.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <bit>
#include <charconv>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#ifndef NOMINMAX
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#endif
#define small char
#define hyper __int64
#define interface struct
#define near
#define far
#define cdecl
#define pascal
#define environ _environ
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define VOID void
#define THIS void
#define PURE = 0
#define TRUE 1
#define FALSE 0
#define STRICT 1
#define ERROR 0
#define NO_ERROR 0L
#define DELETE (0x00010000L)
#define IGNORE 0
#define INFINITE 0xffffffff
#define ABSOLUTE 1
#define RELATIVE 2
#define DIFFERENCE 11
#define TRANSPARENT 1
#define OPAQUE 2
#define Yield()
#define CopyFile CopyFileA
#define CreateFile CreateFileA
#define DeleteFile DeleteFileA
#define GetMessage GetMessageA
#define GetObject GetObjectA
#define LoadString LoadStringA
#define MoveFile MoveFileA
#define ReplaceFile ReplaceFileA
#define SendMessage SendMessageA
