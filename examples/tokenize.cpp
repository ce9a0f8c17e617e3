// SPDX-License-Identifier: Apache-2.0
// What tokens a text becomes.
#include <ple/models.h>

#include <fmt/core.h>

#include "arguments.h"

#include <filesystem>
#include <fstream>
#include <iterator>

constexpr const char* usage =
    "usage: tokenize MODEL TEXT [options]\n"
    "\n"
    "  MODEL              a Hugging Face folder, a GGUF file or a tokenizer.json\n"
    "  TEXT               the text, or @FILE for that file's\n"
    "  --pieces           print the pieces too, one token a line\n"
    "  --bare             without the tokens that go around a text (<bos>)\n"
    "  --plain            text that spells a special token stays text\n"
    "  --separator TEXT   the text is several, with lines of TEXT between them; prints a line of tokens for each\n";

namespace {

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(fmt::format("{}: cannot read", path));
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string_view> split(std::string_view text, const std::string& separator) {
  std::vector<std::string_view> parts;
  for (std::size_t at; (at = text.find(separator)) != std::string_view::npos; text.remove_prefix(at + separator.size()))
    parts.push_back(text.substr(0, at));
  parts.push_back(text);
  return parts;
}

void run(examples::Arguments& arguments) {
  std::filesystem::path model = arguments.first("MODEL");
  const bool pieces = arguments.flag("--pieces");
  const ple::EncodeOptions options{.add_special = !arguments.flag("--bare"),
                                   .parse_special = !arguments.flag("--plain")};
  const auto separator = arguments.text("--separator");
  std::string text = arguments.first("TEXT");
  arguments.done();
  if (text.starts_with("@")) text = read(text.substr(1));

  if (std::filesystem::is_directory(model)) model /= "tokenizer.json";
  const auto tokenizer = ple::open_tokenizer(model);
  const auto texts = separator ? split(text, "\n" + *separator + "\n") : std::vector<std::string_view>{text};
  for (const std::string_view part : texts) {
    bool first = true;
    for (const ple::Token token : tokenizer.encode(part, options)) {
      if (pieces) {
        fmt::print("{:>8}  {}\n", token, tokenizer.piece(token));
      } else {
        fmt::print("{}{}", first ? "" : " ", token);
      }
      first = false;
    }
    fmt::print("\n");
  }
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
