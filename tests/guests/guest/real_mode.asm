; A ROM of 64 KiB: real mode from the reset vector, then protected mode of 16 and 32 bits, with an interrupt in each.
; Prints what failed to port E9h; 16 at F4h if nothing did.
bits 16
org 0 ; F000:0000, and FFFF0000h

PASSED equ 16
FAILED equ 17

%macro expect_equal 3 ; register or memory, value, text
        cmp %1, %2
        je %%good
        mov si, %%text
        jmp fail
%%text: db %3, 10, 0
%%good:
%endmacro

fail:   mov al, [cs:si]
        inc si
        test al, al
        jz .end
        out 0xe9, al
        jmp fail
.end:   mov eax, FAILED
        out 0xf4, eax
        hlt

main:
        mov ax, cs
        expect_equal ax, 0xf000, "the far jump loads CS"
        smsw ax
        and ax, 1
        expect_equal ax, 0, "real mode after reset"
        xor ax, ax
        mov ss, ax
        mov sp, 0x7000
        mov es, ax
        push word 0x1234
        expect_equal word [es:0x6ffe], 0x1234, "push writes below SS:SP"
        pop bx
        expect_equal bx, 0x1234, "pop reads it back"

; An interrupt by the vector table.
        mov word [es:0x80 * 4], on_int80
        mov word [es:0x80 * 4 + 2], 0xf000
        mov bx, 1
        stc
        int 0x80
        jnc .flags
        expect_equal bx, 2, "INT calls its handler, IRET comes back"
        jmp .segments
.flags: mov si, .flags_text
        jmp fail
.flags_text: db "IRET restores the flags", 10, 0

; A segment wraps at 64 KiB, and the address line A20 is open: FFFF:0010 is 100000h.
.segments:
        mov ax, 0xffff
        mov ds, ax
        mov word [0x10], 0xbeef
        xor ax, ax
        mov ds, ax
        mov word [0], 0x1111
        mov ax, 0xffff
        mov ds, ax
        expect_equal word [0x10], 0xbeef, "FFFF:0010 lies above the first megabyte"
        mov ax, 0x1000
        mov ds, ax
        mov byte [0xffff], 0x5a
        mov al, [0xffff]
        expect_equal al, 0x5a, "the last byte of a segment"

; A division overflow is exception 0, and points at the instruction.
        mov word [es:0], on_divide
        mov word [es:2], 0xf000
        mov ax, 0x1000
        mov bl, 1
divide: div bl
        expect_equal cx, 0xd1, "a quotient that does not fit is exception 0"

; 32-bit registers and addresses work with prefixes.
        mov eax, 0x12345678
        mov ebx, 0x8000
        mov [es:ebx + 4], eax
        expect_equal dword [es:0x8004], 0x12345678, "32-bit operands and addresses in real mode"

; String instructions with 16-bit counts, port output.
        push es
        pop ds
        mov si, 0x8004
        mov di, 0x9000
        mov cx, 2
        cld
        rep movsw
        expect_equal dword [es:0x9000], 0x12345678, "rep movsw"
        expect_equal cx, 0, "it counts CX down"

; Protected mode: 16-bit code first.
        cli
        push cs
        pop ds
        o32 lgdt [gdtr]
        o32 lidt [idtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp 0x08:protected16

on_int80:
        inc bx
        clc
        iret
on_divide:
        mov cx, 0xd1
        push bp
        mov bp, sp
        cmp word [bp + 2], divide
        je .good
        mov cx, 0
.good:  add word [bp + 2], 2 ; behind the DIV
        pop bp
        iret

protected16:
        mov ax, 0x18
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, 0x7000
        jmp dword 0x10:protected32 + 0xf0000

bits 32
%macro expect32 3
        cmp %1, %2
        je %%good
        mov esi, %%text + 0xf0000
        jmp fail32
%%text: db %3, 10, 0
%%good:
%endmacro
fail32: mov al, [esi]
        inc esi
        test al, al
        jz .end
        out 0xe9, al
        jmp fail32
.end:   mov eax, FAILED
        out 0xf4, eax
        hlt

protected32:
        mov eax, cs
        expect32 eax, 0x10, "a far jump to 32-bit code"
        mov dword [0x200000], 0xcafe
        expect32 dword [0x200000], 0xcafe, "flat data above the first megabyte"
        xor ebx, ebx
        int 0x20
        expect32 ebx, 77, "a 32-bit interrupt gate"
        xor ebx, ebx
        mov eax, 0x40
        mov fs, eax ; beyond the GDT
        expect32 ebx, 0x40, "#GP with the selector as error code"

; Paging: 4 MiB one to one, and 800000h onto 200000h.
        mov edi, 0x300000
        mov ecx, 1024
        mov eax, 3
.table: mov [edi], eax
        add eax, 4096
        add edi, 4
        loop .table
        mov dword [0x301000], 0x300003
        mov dword [0x301008], 0x302003
        mov dword [0x302000], 0x200003
        mov eax, 0x301000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        expect32 dword [0x800000], 0xcafe, "a page mapped elsewhere"
        test dword [0x302000], 0x20
        setnz al
        expect32 al, 1, "its accessed bit is set"
        test dword [0x302000], 0x40
        setz al
        expect32 al, 1, "its dirty bit is not"
        mov dword [0x800004], 5
        test dword [0x302000], 0x40
        setnz al
        expect32 al, 1, "until it is written"
        xor ebx, ebx
        mov eax, [0x801000]
        expect32 ebx, 0xf0, "a page that is not there is #PF"
        mov ecx, cr2
        expect32 ecx, 0x801000, "with its address in CR2"
        mov eax, 1
        .byte_vmcall: db 0x0f, 0x01, 0xc1
        expect32 eax, -38, "VMCALL answers -ENOSYS in EAX"

        mov esi, done + 0xf0000
.print: lodsb
        test al, al
        jz .exit
        out 0xe9, al
        jmp .print
.exit:  mov eax, PASSED
        out 0xf4, eax
        hlt

on_int20:
        mov ebx, 77
        iretd
on_gp:  pop ebx ; error code
        add dword [esp], 2
        iretd
on_pf:  add esp, 4
        mov ebx, 0xf0
        add dword [esp], 5
        iretd

done:   db "real and protected mode: 0 failures", 10, 0

align 8
gdt:    dq 0
        dw 0xffff, 0x0000, 0x9b0f, 0x0000 ; 08h: 16-bit code at F0000h
        dw 0xffff, 0x0000, 0x9b00, 0x00cf ; 10h: flat 32-bit code
        dw 0xffff, 0x0000, 0x9300, 0x00cf ; 18h: flat data
gdtr:   dw 31
        dd gdt + 0xf0000
%macro gate 1
        dw %1, 0x10, 0x8e00, 0x000f ; the offset is 000Fxxxxh
%endmacro
align 8
idt:    times 13 dq 0
        gate on_gp
        gate on_pf
        times 0x20 - 15 dq 0
        gate on_int20
idtr:   dw idtr - idt - 1
        dd idt + 0xf0000

        times 0xfff0 - ($ - $$) db 0xff
bits 16
        jmp 0xf000:main ; the reset vector
        times 0x10000 - ($ - $$) db 0xff
