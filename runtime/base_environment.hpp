// What each program that works for a pipeline has in its environment. Any thread.
#pragma once

#include <map>
#include <string>

namespace penstock::runtime {

// A few harmless variables of our own, and who the program works for.
std::map<std::string, std::string> base_environment(const std::string& instance, const std::string& pipeline);

}  // namespace penstock::runtime
