#pragma once
// libtorch contains gloo and ships none of its headers. What c10d's own headers name of it is declared in this folder:
// names and virtual functions only, nothing that lays out an object which this program makes or looks into.
