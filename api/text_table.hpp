// Text in aligned columns, for people. Plain value, any thread.
#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace penstock::api {

class text_table {
 public:
  explicit text_table(std::vector<std::string> headings);

  // As many cells as there are headings. Control characters become spaces.
  void add(std::vector<std::string> cells);
  // Columns two spaces apart, as wide as their widest cell; columns of numbers stand right. No space at line
  // ends.
  void print(std::ostream& out) const;
  bool empty() const { return rows_.empty(); }

 private:
  std::vector<std::string> headings_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace penstock::api
