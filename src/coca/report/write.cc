// SPDX-License-Identifier: Apache-2.0
#include "coca/report/write.h"

#include "coca/io/fs.h"
#include "coca/report/html.h"
#include "coca/report/markdown.h"

namespace coca::report {

ReportFiles write_document(const Document& document, const std::filesystem::path& folder, const std::string& stem) {
  ReportFiles files = {folder / (stem + ".html"), folder / (stem + ".md")};
  const std::string html = to_html(document), markdown = to_markdown(document);
  io::make_dirs(folder);
  for (const Block& block : document.blocks()) {
    const Figure* figure = std::get_if<Figure>(&block);
    if (!figure) continue;
    io::make_dirs(folder / "figures");
    io::write_file_atomic(folder / "figures" / (figure->name + ".svg"), figure->svg);
  }
  io::write_file_atomic(files.markdown, markdown);
  io::write_file_atomic(files.html, html);
  return files;
}

}  // namespace coca::report
